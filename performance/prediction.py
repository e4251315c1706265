"""Predicted against measured peak memory of every strategy, and of recipes at a larger size: docs/predictions.md.

python performance/prediction.py            all strategies on `tiny`, recipes on `small`; writes the page and its CSV
python performance/prediction.py --model small --recipes full,lora,lean    these only, printed

Measured is what a run records: the CPU allocator's peak over one training step, after a step that made the
optimizer's state. Predicted comes from shapes alone. Both on the same batch, the first of the recipe's own loader.
"""

import argparse
import csv
import io
import logging
import statistics
import time
import warnings
from pathlib import Path

import torch

from bench.forecast.forecast import Forecaster
from bench.worker.memory import probe
from strategies import catalogue, compose, parse_plans
from strategies.compatibility.probe import HELPER, TOWERS, term
from strategies.prediction.predict import UnpredictableError, predict
from strategies.protocol import FROZEN, FROZEN_BASE, WEIGHTS
from vqa_model.task import VQATask

DOCS = Path(__file__).resolve().parent.parent / "docs"
BATCH, STEPS = 32, 100
COLUMNS = ("model", "strategy", "recipe", "status", "predicted_bytes", "measured_bytes", "error", "seconds")
GOAL = 0.02
LARGER = (
    "full, amp, lora, lora+amp, qlora, qlora8, qlora+amp, checkpointing, compile, lean, kaggle_t4, "
    "group_by_image, adamw8bit, muon"
)
REASONS = {
    "offload_activations": "tensors without values stay where they are, so it is predicted as if it were not there",
    "shira": "its change is a sparse matrix, of which torch has no gradient without values",
    "lean": "all that is left to keep is small, so 0.3 MiB inside oneDNN's 16-bit convolution show; see `small`",
    "kaggle_t4": "0.25 MiB inside oneDNN's 16-bit products; see `small`",
}


def alone(name: str) -> str:
    """Give the smallest sum in which a strategy can be: on the base or tower at rest that it needs."""
    part = catalogue()[name]
    if FROZEN in part.requires:
        return f"{term(name)}+{term('freeze', TOWERS[0])}"
    needy = FROZEN_BASE in part.requires and WEIGHTS not in part.slots
    return f"{term(name)}+{HELPER}" if needy else term(name)


def row(task: VQATask, name: str, recipe: str) -> dict[str, object]:
    """Predict and measure one recipe."""
    plan, forecaster = compose(recipe), Forecaster(task, "cpu")
    found: dict[str, object] = {"model": task.model, "strategy": name, "recipe": recipe}
    problems = plan.problems("cpu", task.build_model(), item=forecaster.items[0])
    if problems:
        return found | {"status": problems[0].reason}
    batch = forecaster.largest_batch(plan, BATCH)
    started = time.perf_counter()
    try:
        predicted = predict(plan, task.build_model, task.loss, [batch], total_steps=STEPS)[0].peak_bytes
    except UnpredictableError as error:
        return found | {"status": str(error)}
    seconds = time.perf_counter() - started
    tuned = plan.apply(task.build_model(), total_steps=STEPS)
    measured = probe(tuned, lambda: tuned.step(task.loss, batch))["peak_allocated_bytes"]
    return found | {
        "status": "ok", "predicted_bytes": predicted, "measured_bytes": measured,
        "error": f"{predicted / measured - 1:.5f}", "seconds": f"{seconds:.2f}",
    }  # fmt: skip


def as_csv(rows: list[dict[str, object]]) -> str:
    """Give the rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_page(rows: list[dict[str, object]]) -> str:
    """Give the page in Markdown."""
    known = [r for r in rows if r["status"] == "ok"]
    far = [r for r in known if abs(float(str(r["error"]))) > GOAL]
    middle = statistics.median(abs(float(str(r["error"]))) for r in known)
    lines = [
        "# Predicted and measured peak memory",
        "",
        "Written by `make predictions` (`python performance/prediction.py`): the peak of a training step as",
        "`run_matrix.py plan` predicts it from shapes alone, and as the CPU allocator saw it, on the same batch of 32",
        f"questions. Of {len(known)} recipes {len(known) - len(far)} are within {GOAL:.0%}; the median error is",
        f"{middle:.2%}. `compile` is predicted as its eager twin: no correction is needed on a CPU.",
        "",
        "| model | strategy | tried as | predicted MiB | measured MiB | error | seconds | note |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for r in rows:
        note = REASONS.get(str(r["strategy"]), "") if r in far or r["status"] != "ok" else ""
        figures = ["", "", "", ""]
        if r["status"] == "ok":
            sizes = [f"{int(str(r[key])) / 2**20:.2f}" for key in ("predicted_bytes", "measured_bytes")]
            figures = [*sizes, f"{float(str(r['error'])):+.2%}", str(r["seconds"])]
        told = note or ("" if r["status"] == "ok" else str(r["status"]))
        lines.append(f"| {r['model']} | `{r['strategy']}` | `{r['recipe']}` | {' | '.join(figures)} | {told} |")
    return "\n".join(lines) + "\n"


def main(model: str, recipes: str) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    torch.set_flush_denormal(True)
    wanted = [(model, named.text, named.text) for named in parse_plans(recipes)] if recipes else []
    if not wanted:
        wanted = [("tiny", name, alone(name)) for name in sorted(catalogue())]
        wanted += [("tiny", name, name) for name in ("lean", "kaggle_t4")]
        wanted += [("small", named.text, named.text) for named in parse_plans(LARGER)]
    tasks = {size: VQATask(model=size) for size, _, _ in wanted}
    rows = []
    for size, name, recipe in wanted:
        rows.append(row(tasks[size], name, recipe))
        print(" ".join(str(value) for value in rows[-1].values()), flush=True)
    if not recipes:
        (DOCS / "predictions.csv").write_text(as_csv(rows), encoding="utf-8")
        (DOCS / "predictions.md").write_text(as_page(rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="size for --recipes")
    parser.add_argument("--recipes", default="", help="comma-separated recipes in place of everything")
    main(**vars(parser.parse_args()))
