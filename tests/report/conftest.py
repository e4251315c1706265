"""A small factory of synthetic sweeps: rows as bench would write them, made from a few facts per recipe."""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.records.record import FILES

MIB = 2**20
# strategy: (plan, kind, accuracy, TTT s, peak MiB, trainable, compile s, weights/gradients/optimizer share of the peak)
RECIPES = {
    "full": ("full", "baseline", 0.842, 31.0, 61.0, 1_310_000, 0.0, (0.09, 0.08, 0.17)),
    "freeze": ("freeze", "run", 0.781, 12.5, 18.5, 420_000, 0.0, (0.28, 0.09, 0.17)),
    "lora": ("lora", "run", 0.823, 28.0, 49.0, 470_000, 0.0, (0.11, 0.04, 0.07)),
    "lora+amp": ("amp+lora", "run", 0.819, 34.5, 38.0, 470_000, 0.0, (0.14, 0.05, 0.09)),
    "qlora8": ("int8+lora", "run", 0.811, 47.0, 46.5, 470_000, 0.0, (0.07, 0.04, 0.08)),
    "qlora": ("lora+nf4", "run", 0.806, 52.0, 45.8, 470_000, 0.0, (0.05, 0.04, 0.08)),
    "checkpointing": ("checkpointing", "run", 0.842, 39.0, 34.0, 1_310_000, 0.0, (0.16, 0.15, 0.31)),
    "compile": ("compile", "run", 0.841, 58.0, 55.0, 1_310_000, 29.0, (0.1, 0.09, 0.19)),
    "question-only": ("full", "control", 0.512, 30.0, 60.0, 1_310_000, 0.0, (0.09, 0.08, 0.17)),
    "majority-answer": ("full", "control", 0.497, 0.1, 55.0, 0, 0.0, (0.09, 0.08, 0.17)),
}


def run_row(strategy, /, seed=0, **changes):
    """One row of runs.csv; `changes` override columns, None leaves a cell empty."""
    plan, kind, accuracy, ttt, peak, trainable, compiling, shares = RECIPES.get(strategy, RECIPES["lora"])
    accuracy, ttt, peak = accuracy + 0.004 * seed, ttt * (1 + 0.03 * seed), peak * MIB
    weights, gradients, optimizer = (share * peak for share in shares)
    row = {
        "run_id": f"{abs(hash_of(strategy)):06x}{seed:06x}", "sweep": "synthetic", "kind": kind, "strategy": strategy,
        "plan": plan if strategy in RECIPES else strategy, "task": "vqa_model.task:VQATask", "model": "tiny",
        "dataset": "picture-world", "seed": seed, "status": "ok", "device": "cpu", "precision": "fp32",
        "batch_size": 64, "grad_accumulation": 1, "num_threads": 2,
        "train_samples": 6000, "epochs": 4, "steps": 375,
        "lr": 2e-4, "head_lr": 1e-3, "ttt_seconds": ttt,
        "setup_seconds": 0.02 * ttt, "compile_seconds": compiling or None,
        "warmup_seconds": compiling + 0.05 * ttt,
        "train_seconds": 0.93 * ttt - compiling, "data_wait_seconds": 0.06 * ttt,
        "eval_seconds": 4.0, "load_seconds": 2.5, "samples_per_second": 24000 / ttt, "eval_samples_per_second": 900,
        "peak_allocated_bytes": round(peak), "weights_bytes": round(weights), "gradients_bytes": round(gradients),
        "optimizer_bytes": round(optimizer), "activations_bytes": round(peak - weights - gradients - optimizer),
        "predicted_peak_bytes": round(1.01 * peak), "energy_joules": 40 * ttt,
        "time_to_target_seconds": 0.7 * ttt, "steps_to_target": 260,
        "forward_step_seconds": 0.3 * ttt / 375, "backward_step_seconds": 0.5 * ttt / 375,
        "optimizer_step_seconds": 0.1 * ttt / 375, "data_step_seconds": 0.05 * ttt / 375,
        "trainable_parameters": trainable, "total_parameters": 1_310_000 + (50_000 if "lora" in plan else 0),
        "vqa_accuracy": accuracy + 0.01, "accuracy": accuracy, "precision_macro": accuracy - 0.03,
        "recall_macro": accuracy - 0.05, "f1_macro": accuracy - 0.04, "precision_weighted": accuracy,
        "recall_weighted": accuracy, "f1_weighted": accuracy, "created_at": "2026-11-23T20:00:00Z",
        "git_commit": "0123abc", "git_dirty": "False", "environment_hash": "aaaabbbbcccc",
    }  # fmt: skip
    return row | changes


def hash_of(text):
    """A stable small number per name (the built-in hash differs from process to process)."""
    return sum((place + 1) * ord(sign) for place, sign in enumerate(text))


def failed_row(strategy, /, status, reason, **changes):
    """A row as bench writes it for a run that never started."""
    kept = ("run_id", "sweep", "kind", "strategy", "plan", "task", "model", "dataset", "seed", "batch_size", "device")
    row = run_row(strategy)
    return {key: row[key] for key in kept} | {"status": status, "reason": reason} | changes


def history_rows(row):
    """A saturating accuracy every 75 steps and a falling loss every 20 for one finished run."""
    final, seconds = row["accuracy"], row["ttt_seconds"]
    for step in range(20, 376, 20):
        loss = 0.4 + 2.2 * 0.99**step * (2 - final)
        yield [row["run_id"], step, seconds * step / 375, "train", "loss", loss]
    for step in range(75, 376, 75):
        yield [row["run_id"], step, seconds * step / 375, "tune", "accuracy", final - 0.35 * 0.985**step]


def metric_rows(row):
    """Quality by type of answer and of question for one finished run."""
    if row["vqa_accuracy"] is None:
        return
    for part, gain in (
        ("yes/no", 0.1),
        ("number", -0.2),
        ("question_type/what color", -0.1),
        ("question_type/is", 0.1),
    ):
        yield [row["run_id"], "eval", f"vqa_accuracy/{part}", row["vqa_accuracy"] * (1 + gain / 2)]


def scores_of(row, num_questions=200):
    """Right or wrong per question: the same questions are hard for everyone, seed and recipe shift a little."""
    hard = np.random.default_rng(0).random(num_questions)
    own = np.random.default_rng(hash_of(row["strategy"]) + 1000 * row["seed"]).normal(0, 0.05, num_questions)
    return (hard + own < row["vqa_accuracy"]).astype(float)


def write_predictions(folder, row, scores, ids=None):
    path = folder / "runs" / row["run_id"] / "predictions.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": range(len(scores)) if ids is None else ids, "score": scores}), path)
    return path


def write_sweep(folder, rows, history=True, predictions=True, drop=()):
    """Write the CSVs and predictions of a sweep of `rows`; `drop` leaves columns of runs.csv out."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "runs.csv", [c for c in FILES["runs.csv"] if c not in drop], rows)
    finished = [row for row in rows if row["status"] == "ok" and history]
    columns = list(FILES["history.csv"])
    lines = [dict(zip(columns, line, strict=True)) for row in finished for line in history_rows(row)]
    write_csv(folder / "history.csv", columns, lines)
    lines = [dict(zip(FILES["metrics.csv"], line, strict=True)) for row in finished for line in metric_rows(row)]
    write_csv(folder / "metrics.csv", list(FILES["metrics.csv"]), lines)
    for row in finished if predictions else ():
        write_predictions(folder, row, scores_of(row))
    sections = [
        {"run_id": row["run_id"], "section": name, "seconds": row.get(f"{name}_seconds")}
        for row in finished
        for name in ("load", "setup", "warmup", "train", "eval")
    ]
    write_csv(folder / "sections.csv", list(FILES["sections.csv"]), sections)
    return folder


def write_csv(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def predictions():
    return write_predictions


@pytest.fixture(scope="session")
def row():
    return run_row


@pytest.fixture(scope="session")
def failed():
    return failed_row


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a sweep of rows (default: eight recipes and two controls) under tmp_path."""

    def write(rows=None, name="sweep", **options):
        return write_sweep(tmp_path / name, [run_row(s) for s in RECIPES] if rows is None else rows, **options)

    return write
