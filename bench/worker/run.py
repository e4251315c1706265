"""One run in a process of its own: `python -m bench.worker RUN_FOLDER`, the specification read from spec.json there.

Everything it measures goes to events.jsonl; results that are files (weights, predictions) lie beside it.
It never decides its own record: the process that started it folds the events, whatever happened here.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.records.environment import describe_environment, package_versions
from bench.records.events import EventWriter
from bench.records.json_files import write_json
from bench.records.predictions import write_run
from bench.records.spec import RunSpec
from bench.task import Prediction, Task, load_task
from bench.worker.loop import DivergedError, PausedError, Training, cycle, predict, seed_everything
from bench.worker.memory import allocator_retries, probe, write_snapshot
from bench.worker.pause import Batches, deadline, pause, resume
from bench.worker.profiling import busy_seconds, profile_step
from bench.worker.scores import classification_scores
from bench.worker.sections import Clock, process_age
from bench.worker.sensors import Sensors
from strategies import Plan, PlanError, compose, is_out_of_memory
from strategies.quiet import import_packages
from strategies.saving.manifest import add_facts


def run(spec: RunSpec, folder: Path, emit: EventWriter) -> None:
    """The whole run: load, set up, train, evaluate, save, then look at a few more steps from within."""
    device = torch.device(spec.device)
    torch.set_flush_denormal(True)  # a saturated loss makes denormal gradients, 15 × slower on CPU
    emit("section", name="startup")
    sensors = tell_surroundings(device, emit)
    task, plan = load_task(spec.task_text), compose(spec.plan)
    import_packages([task, *plan.members])
    clock = Clock(emit, device, sensors)
    emit("section_end", name="startup", seconds=process_age(), peak_rss_bytes=clock.private_bytes_at_start)
    with clock.section("load"):
        gc.disable()  # reading makes many objects and no garbage: looking for it takes a sixth of the time
        train_items, tune_items, eval_items = task.train_set(), task.tune_set(), task.eval_set()
        gc.enable()
        seed_everything(spec.seed)
        model = task.build_model()
    steps = total_steps(spec, len(train_items))
    with clock.section("setup"):
        tuned = plan.apply(
            model, device=device, seed=spec.seed, total_steps=steps, **learning_rate_overrides(spec, plan)
        )
    seed_everything(spec.seed)
    emit(
        "measured", train_samples=len(train_items), num_threads=torch.get_num_threads(),
        **tuned.plan.facts(device), **{k: tuned.counts()[k] for k in ("trainable_parameters", "total_parameters")},
    )  # fmt: skip
    order = torch.Generator().manual_seed(spec.seed)
    with clock.section("setup"):  # what a recipe has to know of all items before the first batch is its own cost
        started = clock.elapsed("setup")
        loader = tuned.loader(train_items, batch_size=spec.batch_size, collate=task.collate, generator=order)
        setup_seconds = tuned.setup_seconds + clock.elapsed("setup") - started
    emit("measured", startup_seconds=process_age())
    training = Training(tuned, task, clock, emit, spec.batch_size, steps, deadline=deadline(tuned))
    train(training, Batches(loader, order), tune_items, folder, setup_seconds)
    if tuned.skipped_steps() == training.step:
        raise DivergedError("every update was skipped: the gradients overflowed in fp16")
    scores = evaluate(training, eval_items, folder)
    with clock.section("save"):
        saved = tuned.save(folder / "weights")
        add_facts(folder / "weights", weights_facts(spec, scores))
    emit("measured", saved_bytes=saved)
    with clock.section("probe"):
        profile_run(training, cycle(loader), folder if spec.memory_snapshot else None)


def train(training: Training, batches: Batches, tune_items: Sequence[Any], folder: Path, setup: float) -> None:
    """Train from where the run is to its end or its deadline, and tell what that took. setup: seconds it took."""
    clock, emit = training.clock, training.emit
    setup = resume(training, batches, folder, setup)
    if training.deadline < math.inf:
        training.checkpoint = partial(pause, training, batches, folder, setup)
    try:
        training.run(batches, tune_items)
        if training.checkpoint:  # the last evaluation may take too long
            training.checkpoint()
    except PausedError:
        pause(training, batches, folder, setup)
        raise
    finally:
        emit("measured", **training_figures(training, batches.num_items, setup), **training.tuned.found())
        emit("measured", **allocator_retries(clock.device))
        emit("environment", after_training=clock.sensors.state())


def learning_rate_overrides(spec: RunSpec, plan: Plan) -> dict[str, Any]:
    """Rates to replace the plan's own; None where they are the same, so that every scope keeps its own member's."""
    own, requested = plan.rates(), {"lr": spec.lr, "head_lr": spec.head_lr}
    return {name: None if rate == getattr(own, name) else rate for name, rate in requested.items()}


def tell_surroundings(device: torch.device, emit: EventWriter) -> Sensors:
    """Tell where the run happens; gives the device's sensors."""
    sensors = Sensors(device)
    emit("measured", other_gpu_bytes=sensors.other_processes_bytes)
    emit("environment", **describe_environment(device), **sensors.state())
    if sensors.other_share is not None:
        emit("environment", other_gpu_share=sensors.other_share)
    return sensors


def profile_run(training: Training, batches: Iterator[Any], snapshot: Path | None) -> None:
    """What a step is made of and what its memory is for, from a few more steps; each figure told when it is there."""
    tuned, loss, clock, emit = training.tuned, training.task.loss, training.clock, training.emit
    training.largest_batch = training.largest_batch or next(batches)  # a run may go on after its last update
    emit("measured", **profile_step(tuned, loss, batches, clock.synchronise))

    def step() -> object:
        return tuned.step(loss, training.largest_batch)

    if clock.device.type == "cuda":
        emit("measured", device_step_seconds=busy_seconds(step))
        if snapshot:
            write_snapshot(step, snapshot / "memory.pickle")
    emit("measured", **probe(tuned, step))


def weights_facts(spec: RunSpec, scores: Mapping[str, float]) -> dict[str, Any]:
    """What the manifest says of the run whose weights lie there."""
    names = ("run_id", "strategy", "plan", "members", "seed", "task", "dataset", "data", "model", "model_name")
    return {**{name: getattr(spec, name) for name in names}, "metrics": scores, "packages": package_versions()}


def evaluate(training: Training, items: Sequence[Any], folder: Path) -> dict[str, float]:
    """Predict the evaluation set, time it, score it; gives the scores."""
    clock, emit = training.clock, training.emit
    with clock.section("eval"):
        started = clock.elapsed("eval")
        predictions = predict(training.tuned, training.task, items, training.batch_size, emit)
        seconds = clock.elapsed("eval") - started
    if not all(math.isfinite(p["probability"]) for p in predictions):
        raise DivergedError("predictions are not finite after the last update")
    emit("measured", eval_seconds=seconds, eval_samples_per_second=len(items) / seconds)
    with clock.section("score"):
        return report_scores(training.task, predictions, folder, emit)


def total_steps(spec: RunSpec, num_items: int) -> int:
    """Optimizer updates of the run: epochs' worth, or --max-steps where that is less."""
    per_epoch = num_items // spec.batch_size
    if per_epoch == 0:
        raise ValueError(f"--batch-size {spec.batch_size} is larger than the training set ({num_items} items)")
    limits = [spec.max_steps] if spec.max_steps else []
    if spec.epochs is not None:
        limits.append(max(1, round(spec.epochs * per_epoch)))
    return min(limits)


def training_figures(training: Training, num_items: int, setup_seconds: float) -> dict[str, Any]:
    """Columns of runs.csv that come from the training sections."""
    warmup, steady = training.clock.elapsed("warmup"), training.clock.elapsed("train")
    warmup_steps = training.warm_steps
    figures: dict[str, Any] = {
        "steps": training.step,
        "epochs": training.step * training.batch_size / num_items,
        "setup_seconds": setup_seconds,
        "warmup_seconds": warmup,
        "train_seconds": steady,
        "ttt_seconds": warmup + steady + setup_seconds,
        "data_wait_seconds": training.data_wait_seconds,
        "compile_seconds": training.compile_seconds,
        "first_step_seconds": training.first_step_seconds,
    }
    if training.step > warmup_steps:
        figures["steady_data_wait_seconds"] = training.data_wait_seconds - training.warmup_wait_seconds
        figures["samples_per_second"] = (training.step - warmup_steps) * training.batch_size / steady
    return figures


def report_scores(task: Task, predictions: Sequence[Prediction], folder: Path, emit: EventWriter) -> dict[str, float]:
    """Score the predictions, classic metrics and the task's own, and keep each one."""
    if submission := getattr(task, "submission", None):
        write_json(folder / "results.json", submission(predictions))
    metrics, per_example = task.evaluate(predictions)
    scores = classification_scores(predictions) | metrics
    write_run(folder, predictions, per_example)  # first: a record with these scores has a file of predictions
    emit("metrics", split="eval", values=scores)
    emit("measured", **{name: value for name, value in scores.items() if "/" not in name})
    return scores


def failure(error: BaseException) -> tuple[str, str]:
    """Status and one-line reason of an exception."""
    text = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}".rstrip(": ")
    if is_out_of_memory(error):
        return "oom", text
    if isinstance(error, PlanError):
        return "refused", str(error)
    return ("diverged", str(error)) if isinstance(error, DivergedError) else ("failed", text)
