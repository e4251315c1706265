"""Result tables within Markdown files, made from the CSVs they are about and never typed.

    <!-- table results/embedded columns=recipe,vqa,ttt,peak -->
    …
    <!-- end of table -->

What stands between the two lines is written anew. The first line may also say `rows=` (`all`, `recipes` without
controls, `ladder` or `rest`, the recipes not on it; or names: `full;lora+amp`), `sort=` (a column, highest first),
and `setting=` (such as `batch_size:64`) where a sweep has several. A column `slice-bonus:ttt` is that of the folder
beside the first. Folders are named from where the Markdown file lies.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from report.errors import ReportError
from report.files import write_atomic
from report.frames.ablations import by_label, cumulative_ablation
from report.frames.compare import compare
from report.frames.disturbed import left_out
from report.frames.results import load
from report.frames.units import code

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from report.frames.compare import Comparison

BLOCK: Final = re.compile(r"(<!-- table (?P<asked>[^\n]*?) -->\n).*?(<!-- end of table -->)", re.DOTALL)
ROWS: Final = ("all", "recipes", "ladder", "rest")
OPTIONS: Final = ("columns", "rows", "sort", "setting")
MIB: Final = 2**20
WIDE: Final = 1000
NARROW: Final = 0.1

Row = dict[str, Any]


class Column(NamedTuple):
    """How a column is headed, what it says of an entry, and whether of controls too."""

    head: str
    cell: Callable[[Row], str]
    of_controls: bool = False


def update_tables(file: Path, *, write: bool = True) -> bool:
    """Write the tables of a Markdown file anew; say whether any was stale. ReportError names what cannot be made."""
    try:
        before = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file}: not readable as text ({error})") from error
    if before.count("<!-- table ") != len(BLOCK.findall(before)):
        raise ReportError(f"{file}: a table has no line '<!-- end of table -->' below it")
    loaded: dict[Path, list[Comparison]] = {}

    def regenerate(found: re.Match[str]) -> str:
        try:
            lines = _table(found["asked"], file.parent, loaded)
        except ReportError as error:
            raise ReportError(f"{file}: table {found['asked'].split()[0]}: {error}") from error
        return found[1] + "\n".join(["", *lines, "", ""]) + found[3]

    after = BLOCK.sub(regenerate, before)
    if write and after != before:
        write_atomic(file, after)
    return after != before


def _table(spec: str, root: Path, loaded: dict[Path, list[Comparison]]) -> list[str]:
    """Lay out one table as its first line asks."""
    folder, *options = spec.split()
    given = dict(option.partition("=")[::2] for option in options)
    if unknown := set(given) - set(OPTIONS):
        raise ReportError(f"{unknown.pop()}= is none of {', '.join(OPTIONS)}")
    columns = given.get("columns", "recipe,vqa,ttt,peak").split(",")

    def comparison(name: str) -> Comparison:
        if root / name not in loaded:
            loaded[root / name] = compare(load(root / name))
        return _of_setting(loaded[root / name], given.get("setting", ""))

    first = comparison(folder)
    entries = _chosen(first, given.get("rows", "all"))
    tables, chosen = {}, {folder: first}
    for column in columns:
        folder_name, _, name = column.rpartition(":")
        if name not in COLUMNS:
            raise ReportError(f"column {name!r} is none of {', '.join(COLUMNS)}")
        if folder_name not in tables:
            other_folder = f"{folder.rpartition('/')[0]}/{folder_name}".lstrip("/") if folder_name else folder
            chosen[other_folder] = comparison(other_folder)
            tables[folder_name] = {row["label"]: row for row in _rows(chosen[other_folder])}
    if key := given.get("sort"):
        entries = sorted(entries, key=lambda label: -float(COLUMNS[key].cell(tables[""][label]) or "-inf"))
    lines = [_head(columns), "|---|" + "--:|" * (len(columns) - 1)]
    lines += [f"| {' | '.join(_cell(tables, column, label) for column in columns)} |" for label in entries]
    disturbed = left_out(sum(len(of_setting.disturbed) for of_setting in chosen.values()))
    return [*lines, *(["", f"{disturbed}."] if disturbed else [])]


def _of_setting(comparisons: list[Comparison], setting: str) -> Comparison:
    key, _, value = setting.partition(":")
    found = [c for c in comparisons if not setting or c.setting.get(key) == value]
    if not found:
        raise ReportError(f"no run of the sweep has setting={setting}")
    return found[0]


def _chosen(comparison: Comparison, rows: str) -> list[str]:
    """Labels of the rows asked for, in the table's order."""
    entries = comparison.entries
    if rows not in ROWS:
        named = rows.split(";")
        if unknown := set(named) - set(entries["label"]):
            raise ReportError(f"rows={unknown.pop()} is none of {', '.join(ROWS)} and no recipe of the sweep")
        return named
    if rows == "all":
        return list(entries["label"])
    ablation_steps = [ablation_step.label for ablation_step in cumulative_ablation(comparison)]
    if rows == "ladder":
        return ablation_steps
    recipes = entries.loc[entries["kind"] != "control", "label"]
    return [label for label in recipes if rows == "recipes" or label not in ablation_steps]


def _rows(comparison: Comparison) -> list[Row]:
    """Entries with what is not in them: medians of ratios, speed, how much of a step the GPU waits."""
    ratios = comparison.finished.groupby("entry")[["ttt_ratio", "memory_ratio"]].median()
    trials = comparison.runs.groupby("entry")["tuned_rates"].max()  # only the first seed of a recipe has them
    base = comparison.baseline
    speed = math.nan if base is None else base["samples_per_second"]
    return [
        row
        | {str(column): ratios[column].get(row["label"], math.nan) for column in ratios}
        | {"speed_ratio": row["samples_per_second"] / speed}
        | {"tuned_rates": trials.get(row["label"], "")}
        | {"idle": max(1 - row["device_step_seconds"] * row["samples_per_second"] / row["batch_size"], 0.0)}
        | {"prediction_error": row["predicted_peak_bytes"] / row["peak_allocated_bytes"] - 1}
        for row in by_label(comparison).values()
    ]


def _head(columns: list[str]) -> str:
    heads = []
    for column in columns:
        folder_name, _, name = column.rpartition(":")
        heads.append(f"{folder_name}: {COLUMNS[name].head}" if folder_name else COLUMNS[name].head)
    return f"| {' | '.join(heads)} |"


def _cell(tables: dict[str, dict[str, Row]], column: str, label: str) -> str:
    folder_name, _, name = column.rpartition(":")
    row = tables[folder_name].get(label)
    if row is None or (row["kind"] == "control" and not COLUMNS[name].of_controls):
        return ""
    return COLUMNS[name].cell(row)


def _recipe(row: Row) -> str:
    return f"*{row['label'].replace('-', ' ')}*" if row["kind"] == "control" else code(row["label"])


def _number(key: str, form: str, size: float = 1.0) -> Callable[[Row], str]:
    """Write a value divided by `size`; empty where it is missing."""
    return lambda row: "" if math.isnan(row[key]) else format(row[key] / size, form)


def _mib(key: str) -> Callable[[Row], str]:
    """Write bytes in MiB, large ones without decimals."""
    return lambda row: (
        "" if math.isnan(row[key]) else format(row[key] / MIB, ",.0f" if row[key] > WIDE * MIB else ".1f")
    )


def _ratio(key: str) -> Callable[[Row], str]:
    """Write a ratio with two digits."""
    return lambda row: "" if math.isnan(row[key]) else format(row[key], ".3f" if row[key] < NARROW else ".2f")


def _trial_scores(row: Row) -> str:
    """Write the last accuracies on the tune set, in percent, of the rates that were tried, the lowest rate first."""
    return ", ".join(f"{100 * float(pair.partition('=')[2]):.1f}" for pair in row["tuned_rates"].split())


def _chosen_rate(row: Row) -> str:
    return format(row["head_lr"] if math.isnan(row["lr"]) else row["lr"], "g")


def _range(row: Row) -> str:
    return "" if math.isnan(row["vqa_accuracy"]) else f"{_low(row):.1f}–{100 * row['vqa_accuracy_high']:.1f}"


def _low(row: Row) -> float:
    return float(100 * row["vqa_accuracy_low"])


COLUMNS: Final = {
    "recipe": Column("recipe", _recipe, of_controls=True),
    "vqa": Column("VQA accuracy", _number("vqa_accuracy", ".1f", 0.01), of_controls=True),
    "range": Column("lowest–highest", _range, of_controls=True),
    "accuracy": Column("accuracy", _number("accuracy", ".1f", 0.01), of_controls=True),
    "f1": Column("F1 (macro)", _number("f1_macro", ".1f", 0.01), of_controls=True),
    "precision": Column("precision", _number("precision_macro", ".1f", 0.01), of_controls=True),
    "recall": Column("recall", _number("recall_macro", ".1f", 0.01), of_controls=True),
    "ttt": Column("TTT, s", _number("ttt_seconds", ".1f")),
    "ttt_ratio": Column("TTT × full", _ratio("ttt_ratio")),
    "speed": Column("questions/s", _number("samples_per_second", ",.0f")),
    "speed_ratio": Column("speed × full", _ratio("speed_ratio")),
    "first_step": Column("first update, s", _number("first_step_seconds", ".1f")),
    "mfu": Column("MFU", _number("mfu", ".0%")),
    "idle": Column("GPU idle", _number("idle", ".0%")),
    "energy": Column(
        "J per question", lambda row: _number("energy_joules", ".2f", row["steps"] * row["batch_size"])(row)
    ),
    "forward": Column("forward, ms", _number("forward_step_seconds", ".0f", 1e-3)),
    "backward": Column("backward, ms", _number("backward_step_seconds", ".0f", 1e-3)),
    "optimizer_step": Column("optimizer, ms", _number("optimizer_step_seconds", ".0f", 1e-3)),
    "peak": Column("peak, MiB", _mib("peak_allocated_bytes")),
    "memory_ratio": Column("peak × full", _ratio("memory_ratio")),
    "weights": Column("weights", _mib("weights_bytes")),
    "optimizer": Column("optimizer", _mib("optimizer_bytes")),
    "activations": Column("activations", _mib("activations_bytes")),
    "predicted": Column("predicted", _number("prediction_error", "+.1%")),
    "tried": Column("tune set, lower to higher rates", _trial_scores),
    "rate": Column("rate", _chosen_rate),
    "trials": Column("trials, s", _number("tuning_seconds", ".0f")),
    "trainable": Column("trained, thousands", _number("trainable_parameters", ",.0f", 1000)),
}
