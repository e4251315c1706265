"""The results schema: every file a sweep writes, every column, its unit and its meaning.

Standard library only, because `report` reads results without torch. A value that was not measured is an
empty cell, never a sentinel. Raising SCHEMA_VERSION changes every `run_id`, so columns are only ever added.
"""

from __future__ import annotations

from typing import Final, Literal

from bench.records import disturbance

SCHEMA_VERSION: Final = 1

Status = Literal["ok", "oom", "diverged", "timeout", "failed", "refused", "unavailable"]
STATUSES: Final[dict[str, str]] = {
    "ok": "finished; every figure was measured",
    "oom": "ran out of memory, on the device or on the host",
    "diverged": "the loss became NaN or infinite (found up to 20 steps late)",
    "timeout": "stopped by --timeout, or as it told nothing for --max-silence",
    "failed": "died for another reason: an exception, a signal",
    "refused": "the combination is not allowed; nothing was run",
    "unavailable": "this device or installation cannot run it; nothing was run",
}
TARGET_SHARE: Final = 0.97  # of the baseline's last value on the tune set: what time to target is the time to
FINAL: Final = frozenset({"ok", "oom", "diverged"})  # not run again when a sweep goes on

KINDS: Final = ("run", "baseline", "control", "tuning")
SECTIONS: Final = (
    "startup", "load", "setup", "warmup", "train", "eval", "score", "save", "probe", "measuring", "exit", "checkpoint",
)  # fmt: skip
TUNING_COLUMNS: Final = ("tuned_rates", "tuning_seconds", "tuning_best", "tuning_spread")
DISTURBANCE_COLUMNS: Final = disturbance.RUN_COLUMNS
TEXT_COLUMNS: Final = frozenset({
    "run_id", "sweep", "kind", "strategy", "plan", "task", "model", "dataset", "setting", "status", "reason", "section",
    "device", "gpu_name", "start_method", "precision", "created_at", "git_commit", "git_dirty", "environment_hash",
    "split", "metric", "tuned_rates", "disturbed",
})  # fmt: skip
MEMORY_KINDS: Final = ("weights", "gradients", "optimizer", "activations")

RUN_COLUMNS: Final[dict[str, str]] = {
    "run_id": "12 hex digits over everything that decides the result (not over paths, versions or timeouts)",
    "sweep": "name of the results folder",
    "kind": "run, baseline (full fine-tuning, what ratios are taken against), control (a sanity row) or tuning (a rate "
    "that was tried and not chosen)",
    "strategy": "the recipe as typed on the command line, or the control's name",
    "plan": "the recipe with aliases expanded, in canonical order, defaults left out",
    "task": "import path of the task class",
    "model": "name of the model the task builds",
    "dataset": "name of the data set",
    "setting": "what runs must share to be compared: task options not at their defaults, length, data and model",
    "seed": "seed of initialisation and data order",
    "status": "ok | oom | diverged | timeout | failed | refused | unavailable",
    "reason": "why the status is not ok",
    "section": "the section in which the run ended",
    "device": "device type: cpu, cuda, …",
    "gpu_name": "the GPU's name, empty on CPU",
    "precision": "compute precision: fp32, bf16 or fp16",
    "batch_size": "examples per optimizer update",
    "grad_accumulation": "micro-batches per optimizer update",
    "num_threads": "torch intra-op threads",
    "start_method": "how the run's process began: fork (of a server that has imported the libraries) or fresh (an "
    "interpreter of its own, which imports them first)",
    "train_samples": "examples in the training set",
    "epochs": "passes over the training set (may be a fraction)",
    "steps": "optimizer updates done",
    "lr": "peak learning rate of adapters and pretrained weights (the plan's first member); empty when none trains",
    "head_lr": "peak learning rate of the new parts: fusion and head",
    "tuned_rates": "rates that --tune tried with the first seed, each with its last accuracy on the tune set",
    "tuning_seconds": "TTT of all these trials together, the chosen one included",
    "tuning_best": "best accuracy on the tune set among them",
    "tuning_spread": "best less worst accuracy on the tune set among those that ended ok",
    "wall_seconds": "from the start of the run's process to its end, as the sweep saw it",
    "ttt_seconds": "time to train: first training batch asked for to last update, device synchronised, data "
    "wait and compiling included, plus the recipe's own set-up (quantising, …); loading, evaluating, saving "
    "excluded",
    "train_seconds": "the steady part of training, after the warm-up steps",
    "startup_seconds": "fixed cost of a run: start of its process to its first training step",
    "load_seconds": "reading data and building the model",
    "cache_seconds": "decoding the pictures into the cache shared by all runs of the data",
    "setup_seconds": "the recipe's own work before training, part of TTT: adapters, quantising; imports excluded",
    "warmup_seconds": "the first steps, compiling included",
    "first_step_seconds": "the first update, its batch included, device synchronised: what is made once is made here",
    "compile_seconds": "time spent in the compiler before the last update; empty when nothing was compiled",
    "data_wait_seconds": "training time spent waiting for batches",
    "steady_data_wait_seconds": "the same of the steady part",
    "forward_step_seconds": "forward pass of an update, and what is done before it: median of up to 5 updates after "
    "the run, the device synchronised around each part, so the parts need not add up to an update of the run",
    "backward_step_seconds": "backward pass of an update; computing again counts here, as does updating inside it",
    "optimizer_step_seconds": "clipping and the optimizer's step",
    "data_step_seconds": "waiting for a batch",
    "device_step_seconds": "time of an update in which the GPU computes or copies; the rest of it the GPU waits",
    "eval_seconds": "final evaluation over the whole evaluation set",
    "samples_per_second": "training examples per second of the steady part",
    "eval_samples_per_second": "evaluation examples per second",
    "peak_allocated_bytes": "allocator peak of a training step: on CUDA of the training sections, on CPU from "
    "the profiler's allocator events over a few extra steps after the run",
    "peak_reserved_bytes": "most memory the CUDA caching allocator held while training",
    "peak_device_bytes": "GPU memory in use beyond what others had, as NVIDIA's driver tells it while training: the "
    "caching allocator's, the CUDA context's, libraries' and paged optimizers'",
    "other_gpu_bytes": "GPU memory in use when the run began, by other processes",
    "num_alloc_retries": "times the CUDA caching allocator had to give memory back and try again",
    "num_ooms": "times that was in vain; more than zero in a run that ended ok is a batch size that was tried",
    "peak_rss_bytes": "most memory the process had of its own while training, beyond what its imports took (in records "
    "without start_method: all its resident memory, libraries included; not to be compared)",
    "peak_tree_rss_bytes": "the same with the processes that it started, such as compilers",
    "weights_bytes": "parameters and buffers, quantisation state included",
    "gradients_bytes": "gradients alive at the peak",
    "optimizer_bytes": "optimizer state",
    "activations_bytes": "the rest of the peak: saved activations and temporaries",
    "predicted_peak_bytes": "peak predicted before the run",
    "trainable_parameters": "parameters that get a gradient",
    "total_parameters": "all parameters, 4-bit ones counted unpacked",
    "saved_bytes": "size on disk of what the recipe has to keep: adapters and trained parts, or all weights",
    "energy_joules": "energy used by the GPU while training, from the driver's counter",
    "mfu": "model FLOPs utilisation, 0 to 1: operations of the plain model at the speed reached over the dense peak "
    "in the run's precision; empty where that means nothing: no known peak, weights at rest, work left out",
    "model_flops_per_sample": "operations of full fine-tuning for one training example, both passes, counted once",
    "cost_dollars": "time to train at the GPU's price per hour; empty where no price is known",
    **DISTURBANCE_COLUMNS,
    "vqa_accuracy": "official VQA accuracy, 0 to 1",
    "accuracy": "share of predictions equal to the single target label, 0 to 1",
    "precision_macro": "precision, unweighted mean over classes, over the whole set",
    "recall_macro": "recall, unweighted mean over classes, over the whole set",
    "f1_macro": "F1, unweighted mean over classes, over the whole set",
    "precision_weighted": "precision, mean over classes weighted by support",
    "recall_weighted": "recall, mean over classes weighted by support",
    "f1_weighted": "F1, mean over classes weighted by support",
    "time_to_target_seconds": "TTT up to the first evaluation on the tune set that reached the target, a share of the "
    "baseline's last one of the same seed and setting; inf when it was never reached",
    "steps_to_target": "optimizer updates up to there; inf when it was never reached",
    "created_at": "when the record was written, UTC, ISO 8601",
    "git_commit": "commit of the suite that ran",
    "git_dirty": "whether the suite's tree had uncommitted changes",
    "environment_hash": "12 hex digits over package versions, Python, processor and GPU",
}
HISTORY_COLUMNS: Final[dict[str, str]] = {
    "run_id": "see runs.csv",
    "step": "optimizer updates done",
    "train_seconds": "training time so far, warm-up included, evaluation excluded",
    "split": "train or tune",
    "metric": "loss, accuracy, …",
    "value": "its value",
}
METRIC_COLUMNS: Final[dict[str, str]] = {
    "run_id": "see runs.csv",
    "split": "the set it was measured on",
    "metric": "name of the metric; a part after / is a subset",
    "value": "its value, 0 to 1",
}
SECTION_COLUMNS: Final[dict[str, str]] = {
    "run_id": "see runs.csv",
    "section": " | ".join(SECTIONS),
    "seconds": "wall clock, device synchronised at both ends",
    "peak_allocated_bytes": "allocator peak inside the section (CUDA)",
    "peak_reserved_bytes": "caching allocator's peak inside the section (CUDA)",
    "peak_rss_bytes": "the process's own memory at its peak inside the section beyond what its imports took; in "
    "startup what they took",
    "tree_rss_bytes": "the same with the processes that it started and that are there at the section's end",
    "device_bytes": "GPU memory in use at the section's end beyond what others had (NVML)",
    "energy_joules": "energy used by the GPU (NVML)",
    **disturbance.SECTION_COLUMNS,
}
MEMORY_COLUMNS: Final[dict[str, str]] = {
    "run_id": "see runs.csv",
    "kind": " | ".join(MEMORY_KINDS),
    "bytes": "bytes of that kind alive at the peak of a training step",
}
PREDICTION_COLUMNS: Final[dict[str, str]] = {
    "run_id": "see runs.csv; a run's own file, runs/RUN_ID/predictions.parquet, has all columns but this one",
    "id": "the example's id in the evaluation set",
    "prediction": "what was answered",
    "probability": "the model's probability of that answer, 0 to 1",
    "score": "the example's score, 0 to 1",
}
COMPARISON_COLUMNS: Final[dict[str, str]] = {
    "level": "recipe (what can be said of it from all its seeds) or run (of this trained model alone)",
    "strategy": "the recipe, as in the summary",
    "plan": "see runs.csv",
    "setting": "see runs.csv",
    "device": "see runs.csv",
    "batch_size": "see runs.csv",
    "run_id": "the run, for level run",
    "baseline_run_id": "the baseline run of the same seed, for level run",
    "seeds": "the seeds that both have, separated by spaces",
    "num_questions": "evaluation examples that both answered",
    "difference": "mean score per example less the baseline's, -1 to 1",
    "low": "lower end of its 95 % interval; for a recipe, over other seeds and other questions",
    "high": "upper end of it",
    "p": "two-sided p of no difference: for a recipe from the same interval, for a run McNemar's exact test",
    "p_holm": "p of a recipe corrected for all recipes compared in its setting (Holm)",
    "p_equal": "p of a difference of a point or more, either way (two one-sided tests)",
    "verdict": "equal (within 1 point), better, worse or cannot tell, each at 5 %; a recipe with one seed: cannot tell",
}
FILES: Final[dict[str, dict[str, str]]] = {
    "runs.csv": RUN_COLUMNS,
    "history.csv": HISTORY_COLUMNS,
    "metrics.csv": METRIC_COLUMNS,
    "sections.csv": SECTION_COLUMNS,
    "memory.csv": MEMORY_COLUMNS,
}
PREDICTIONS: Final = "predictions.parquet"  # of the sweep, folded from its runs' own
REPORT_FILES: Final[dict[str, dict[str, str]]] = {"comparisons.csv": COMPARISON_COLUMNS}  # written by `report`


def schema_markdown() -> str:
    """The page docs/results-schema.md, generated so that it cannot differ from the code."""
    lines = [
        "# Results schema",
        "",
        f"Version {SCHEMA_VERSION}. Generated from `bench/records/record.py`: `python -m bench.records.record`.",
        "",
    ]
    for name, columns in (FILES | {PREDICTIONS: PREDICTION_COLUMNS} | REPORT_FILES).items():
        lines += [f"## {name}", "", "| column | meaning |", "|---|---|"]
        lines += [f"| `{column}` | {meaning.replace('|', chr(92) + '|')} |" for column, meaning in columns.items()]
        lines.append("")
    lines += ["## Status", "", "| status | meaning |", "|---|---|"]
    lines += [f"| `{status}` | {meaning} |" for status, meaning in STATUSES.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(schema_markdown(), end="")
