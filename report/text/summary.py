"""The Markdown summary of a sweep: findings, table, failures, figures, how it was run, definitions.

Everything that says how a number was obtained stands on the same page as the number. The definitions of columns
come from the schema, so that the page and the measuring code cannot drift apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from bench.records.record import RUN_COLUMNS, STATUSES
from report.figures.catalogue import CAPTIONS
from report.frames.learning_rates import learning_rate_lines
from report.frames.steps import break_even_lines, step_lines
from report.frames.targets import target_lines
from report.frames.units import MISSING, amount, byte_unit, cell, count, percent, time_unit, times
from report.frames.wall_clock import wall_lines
from report.text.findings import findings
from report.text.verdicts import verdict_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from report.frames.compare import Comparison

HEADER: Final = (
    "strategy", "VQA accuracy", "accuracy", "F1", "precision", "recall",
    "TTT", "TTT × baseline", "peak memory", "peak × baseline", "trainable parameters", "status",
)  # fmt: skip
SCORES: Final = ("vqa_accuracy", "accuracy", "f1_macro", "precision_macro", "recall_macro")
SETUP_COLUMNS: Final = {
    "task": "task", "model": "model", "dataset": "data", "device": "device", "gpu_name": "GPU",
    "num_threads": "threads", "precision": "precision", "seed": "seeds", "batch_size": "batch size", "epochs": "epochs",
    "steps": "updates", "train_samples": "training examples", "git_commit": "commit", "environment_hash": "environment",
}  # fmt: skip
DEFINED_COLUMNS: Final = {
    "vqa_accuracy": "VQA accuracy", "accuracy": "Accuracy", "ttt_seconds": "TTT", "peak_allocated_bytes": "Peak memory",
    "trainable_parameters": "Trainable parameters",
}  # fmt: skip
DISTURBED: Final = (
    "Others used the machine while these runs trained, so their times stand in `runs.csv` only: no mean, ratio or "
    "figure has them. On a quiet machine the same sweep with `--require-idle` runs them again."
)
MAX_VALUES: Final = 8
SECTIONS: Final = (verdict_lines, learning_rate_lines, target_lines, step_lines, break_even_lines)


def summary(name: str, comparisons: Sequence[Comparison], figures: Mapping[str, Sequence[str]]) -> str:
    """Write the page; `figures` are the files that the pictures drawn for each comparison's title lead to."""
    lines = [f"# {plain(name)}", ""]
    for comparison in comparisons:
        title = heading(comparison, comparisons)
        if len(comparisons) > 1:
            lines += [f"## {plain(title)}", ""]
        lines += [" ".join(plain(sentence) for sentence in findings(comparison)), ""]
        lines += [*table(comparison), "", *_failures(comparison), *_disturbed(comparison)]
        for section in SECTIONS:
            lines += section(comparison)
        lines += [*_figures(figures.get(title, ())), "### How it was run", "", *_setup(comparison), ""]
    return "\n".join([*lines, *wall_lines(comparisons), *_definitions()]) + "\n"


def heading(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Name a comparison by the part of its setting that others do not share; empty when it is the only one."""
    differing = {k: v for k, v in comparison.setting.items() if any(o.setting[k] != v for o in comparisons)}
    if "setting" in differing:
        others = [set(other.setting["setting"].split(", ")) for other in comparisons]
        parts = differing["setting"].split(", ")
        differing["setting"] = ", ".join(part for part in parts if not all(part in other for other in others))
    return ", ".join(f"{key.replace('_', ' ')} {value or 'unknown'}" for key, value in differing.items())


def plain(text: str) -> str:
    """Escape what Markdown or HTML would act on, on one line."""
    return re.sub(r"([\\`*_|<>\[\]#])", r"\\\1", " ".join(text.split()))


def table(comparison: Comparison) -> list[str]:
    """Lay out the comparison table: baseline first, recipes as run, controls last."""
    entries = comparison.entries
    peak, ttt = entries["peak_allocated_bytes"].fillna(0).max(), entries["ttt_seconds"].fillna(0).max()
    units = (time_unit(float(ttt)), byte_unit(float(peak)))
    rows = [HEADER, ("---", *["---:"] * (len(HEADER) - 2), "---")]
    rows += [_row(entry, units) for _, entry in entries.iterrows()]
    return [f"| {' | '.join(row)} |" for row in rows]


def _row(entry: pd.Series[Any], units: tuple[tuple[str, float], tuple[str, float]]) -> tuple[str, ...]:
    """Format one entry; several seeds show mean and, in brackets, lowest to highest score."""
    name = plain(entry["label"])
    if entry["kind"] == "control":
        name = f"*{name}* (control)"
    elif entry["plan"] not in ("", entry["label"]) and not entry["label"].startswith(entry["plan"] + " "):
        name += f" (= {plain(entry['plan'])})"
    scores = []
    for column in SCORES:
        spread = (
            f" [{100 * entry[f'{column}_low']:.1f}–{100 * entry[f'{column}_high']:.1f}]" if entry["num_ok"] > 1 else ""
        )
        scores.append(percent(entry[column]) + (spread if entry[column] == entry[column] else ""))
    share = entry["trainable_parameters"] / entry["total_parameters"] if entry["total_parameters"] > 0 else float("nan")
    trained = count(entry["trainable_parameters"])
    return (
        name,
        *scores,
        amount(entry["ttt_seconds"], units[0]),
        times(entry["ttt_ratio"]),
        amount(entry["peak_allocated_bytes"], units[1]),
        times(entry["memory_ratio"]),
        trained if trained == MISSING or pd.isna(share) else f"{trained} ({percent(share)})",
        entry["status"],
    )


def _failures(comparison: Comparison) -> list[str]:
    failed = comparison.failures
    if failed.empty:
        return []
    columns = ("entry", "seed", "status", "section", "reason")
    lines = ["### Did not finish", "", "| strategy | seed | status | in section | reason |", "|---|---|---|---|---|"]
    cells = ([plain(cell(row[column])) or MISSING for column in columns] for row in failed.to_dict("records"))
    lines += [f"| {' | '.join(row)} |" for row in cells]
    meanings = [f"- {status}: {STATUSES[status]}" for status in dict.fromkeys(failed["status"])]
    return [*lines, "", *meanings, ""]


def _disturbed(comparison: Comparison) -> list[str]:
    """Name the runs whose times are left out, what others did meanwhile, and how to repair it."""
    rows = comparison.disturbed
    if rows.empty:
        return []
    lines = ["### Disturbed", "", DISTURBED, "", "| strategy | seed | meanwhile |", "|---|---|---|"]
    columns = ("entry", "seed", "disturbed")
    cells = ([plain(cell(row[column])) for column in columns] for row in rows.to_dict("records"))
    return [*lines, *(f"| {' | '.join(row)} |" for row in cells), ""]


def _figures(names: Sequence[str]) -> list[str]:
    lines = ["### Figures", ""] if names else []
    for name in names:
        caption = CAPTIONS[max((key for key in CAPTIONS if name.startswith(key)), key=len)]
        lines += [f"[![{caption}](figures/{name.rpartition('.')[0]}.png)](figures/{name})", ""]
    return lines


def _setup(comparison: Comparison) -> list[str]:
    """List what the runs share; where they differ, the first few values are named."""
    lines = []
    for column, name in SETUP_COLUMNS.items():
        found = [text for text in dict.fromkeys(cell(value) for value in comparison.runs[column]) if text]
        more = f" and {len(found) - MAX_VALUES} more" if len(found) > MAX_VALUES else ""
        if found:
            lines.append(f"- {name}: {plain(', '.join(found[:MAX_VALUES]))}{more}")
    return lines


def _definitions() -> list[str]:
    return [
        "### Units and definitions",
        "",
        *(f"- **{name}** (`{column}`): {plain(RUN_COLUMNS[column])}." for column, name in DEFINED_COLUMNS.items()),
        "- **F1, precision, recall**: macro averages (unweighted mean over answer classes); weighted ones: `runs.csv`.",
        "- **× baseline**: the run over the baseline run of the same seed and setting; a dash where there is none.",
        "- Memory in binary units (1 MiB = 2²⁰ bytes). Several seeds: mean, with lowest–highest in brackets.",
        "- Every other column: `bench/records/record.py`.",
    ]
