"""What a GPU's sweeps came to: tables in Markdown from a results folder's CSVs, also `findings.md` there.

python performance/gpu_findings.py results/gpu-h100-80gb-hbm3
"""

import argparse
import io
import math
from contextlib import redirect_stdout
from pathlib import Path

import pandas as pd
from measuring import show

from report.frames.results import load

SAME_LOSS = 0.02  # of full's on unseen pictures: learned as well
GOALS = {"speed": 10, "memory": {64: 1 / 7, 256: 1 / 8}}
COLUMNS = [
    "recipe", "TTT, s", "full ÷", "first step, s", "steady q/s", "× full", "MFU", "GPU idle", "data wait", "peak MiB",
    "× full", "predicted", "on the GPU, MiB", "J/q", "loss", "compared",
]  # fmt: skip


def read(folder: Path) -> pd.DataFrame:
    """Rows of runs.csv, each with its loss on unseen pictures; runs that others disturbed have no times."""
    found = load(folder)
    runs, metrics = found.runs, found.metrics
    losses = metrics[metrics.metric == "loss"].set_index("run_id")["value"]
    return runs.assign(loss=runs.run_id.map(losses))


def learns_both(run: pd.Series, full: pd.Series) -> bool:
    """Whether a run trains in both towers and learned as well as full fine-tuning did."""
    towers = not any(part in run.plan for part in ("freeze", "cache_features", "linear_probe"))
    return towers and bool(run.loss <= full.loss * (1 + SAME_LOSS))


def cell(value: float, form: str) -> str:
    return "" if value is None or math.isnan(value) else format(value, form)


def line(run: pd.Series, full: pd.Series) -> list[str]:
    """One recipe beside full fine-tuning in fp32 of the same model and batch."""
    if run.status != "ok":
        return [f"`{run.strategy}`", str(run.status), *[""] * (len(COLUMNS) - 3), str(run.reason)[:80]]
    steady, step = run.train_seconds, run.batch_size / run.samples_per_second
    return [
        f"`{run.strategy}`", cell(run.ttt_seconds, ".2f"), cell(full.ttt_seconds / run.ttt_seconds, ".2f"),
        cell(run.first_step_seconds, ".2f"), cell(run.samples_per_second, ".0f"),
        cell(run.samples_per_second / full.samples_per_second, ".2f"), cell(run.mfu, ".1%"),
        cell(max(1 - run.device_step_seconds / step, 0.0), ".1%"), cell(run.steady_data_wait_seconds / steady, ".1%"),
        cell(run.peak_allocated_bytes / 2**20, ".0f"),
        cell(run.peak_allocated_bytes / full.peak_allocated_bytes, ".3f"),
        cell(run.predicted_peak_bytes / run.peak_allocated_bytes - 1, "+.1%"),
        cell(run.peak_device_bytes / 2**20, ".0f"),
        cell(run.energy_joules / (run.steps * run.batch_size), ".2f"), cell(run.loss, ".3f"),
        "yes" if learns_both(run, full) else "apart",
    ]  # fmt: skip


def best(runs: pd.DataFrame, full: pd.Series) -> None:
    """The fastest and the leanest of those that train both towers and learned as well."""
    done = runs[runs.status == "ok"]
    fair = done[[learns_both(run, full) for _, run in done.iterrows()]]
    if fair.empty:
        print("- no loss on unseen pictures is known here: nothing is said to have learned as well")
        return
    for what, column in (
        ("Least time to train", "ttt_seconds"),
        ("Fastest when steady", None),
        ("Leanest", "peak_allocated_bytes"),
    ):
        if column is None:
            run = fair.loc[fair.samples_per_second.idxmax()]
            factor = run.samples_per_second / full.samples_per_second
        else:
            run = fair.loc[fair[column].idxmin()]
            factor = full[column] / run[column]
        print(f"- {what}: `{run.strategy}`, {factor:.2f} × better than full fine-tuning in fp32")


def tell(folder: Path) -> None:
    """Print the tables and write findings.md."""
    runs = read(folder)
    text = io.StringIO()
    with redirect_stdout(text):
        for (model, batch), part in runs.groupby(["model", "batch_size"], sort=True):
            full = part[(part.plan == "full") & (part.status == "ok")]
            print(f"\n## {model}, batch {batch:g}\n")
            if full.empty:
                print("full fine-tuning did not end here; nothing to compare with")
                continue
            show(COLUMNS, [line(run, full.iloc[0]) for _, run in part.iterrows()])
            print()
            best(part, full.iloc[0])
    print(text.getvalue())
    (folder / "findings.md").write_text(f"# What came out on {folder.name}\n{text.getvalue()}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    tell(parser.parse_args().folder)
