"""Reads a sweep's CSVs into data frames and refuses what cannot be trusted.

The files are read with the csv module first, because pandas fills the missing cells of a half-written row in
silence; numbers are converted column by column, so that an error can name file, line and column. A missing
*column* or an empty cell is not an error: the figure that needs it says so instead of drawing it wrong.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from bench.records.record import FILES, KINDS, STATUSES, TEXT_COLUMNS
from report.errors import ReportError
from report.frames.disturbed import without_disturbed_times

if TYPE_CHECKING:
    from pathlib import Path

SHARES: Final = frozenset({
    "vqa_accuracy", "accuracy", "precision_macro", "recall_macro", "f1_macro",
    "precision_weighted", "recall_weighted", "f1_weighted",
})  # fmt: skip
UNBOUNDED: Final = frozenset({"time_to_target_seconds", "steps_to_target"})  # never reached is inf
KEYS: Final = {
    "runs.csv": ("run_id", "status"),
    "history.csv": ("run_id", "split", "metric", "value"),
    "metrics.csv": ("run_id", "split", "metric", "value"),
    "sections.csv": ("run_id", "section", "seconds"),
}
REBUILD: Final = "CSVs are rebuilt from runs/*/record.json: start the sweep again with the same --out"


@dataclass(frozen=True)
class Results:
    """A sweep as data frames with every column of the schema; what was not measured is missing (NaN or "").

    So are the times of runs that others disturbed.

    runs, history, metrics, sections: one frame per CSV.
    """

    folder: Path
    runs: pd.DataFrame
    history: pd.DataFrame
    metrics: pd.DataFrame
    sections: pd.DataFrame


def load(folder: Path) -> Results:
    """Read one sweep folder; ReportError for a folder, file, line or cell that is not a sweep's."""
    if not (folder / "runs.csv").is_file():
        here = sorted(str(found.parent) for found in folder.parent.glob("*/runs.csv"))
        instead = f"sweeps beside it: {', '.join(here)}" if here else "make one with: python run_matrix.py"
        missing = "has no runs.csv" if folder.is_dir() else "is not a folder"
        raise ReportError(f"{folder} {missing}, so it is no sweep; {instead}")
    runs = _frame(folder / "runs.csv")
    _check_runs(folder / "runs.csv", runs)
    history, metrics, sections = (_frame(folder / name) for name in ("history.csv", "metrics.csv", "sections.csv"))
    runs, history, sections = without_disturbed_times(runs, history, sections)
    runs = _without_older_memory(runs)
    return Results(folder, runs, history, metrics, sections)


def _without_older_memory(runs: pd.DataFrame) -> pd.DataFrame:
    """Leave out resident memory that counts libraries beside a process's own, which newer runs have: not comparable."""
    older = runs["start_method"] == ""
    if older.all():
        return runs
    peaks = {name: runs[name].mask(older) for name in ("peak_rss_bytes", "peak_tree_rss_bytes")}
    comparable: pd.DataFrame = runs.assign(**peaks)
    return comparable


def _frame(path: Path) -> pd.DataFrame:
    """One CSV with exactly the schema's columns; an absent side file is an empty frame."""
    columns = tuple(FILES[path.name])
    header, rows = _rows(path) if path.name == "runs.csv" or path.exists() else (columns, [])
    if lost := [key for key in KEYS[path.name] if key not in header]:
        raise ReportError(f"{path}: line 1 has no column {', '.join(lost)}; is it a TuneMatrix {path.name}? {REBUILD}")
    cells = pd.DataFrame(rows, columns=list(header), dtype=object)
    series = {}
    for column in columns:
        texts = [str(text).strip() for text in cells[column]] if column in header else [""] * len(cells)
        text = column in TEXT_COLUMNS
        series[column] = pd.Series(texts if text else _numbers(path, column, texts), dtype=object if text else float)
    frame: pd.DataFrame = pd.DataFrame(series)
    return frame


def _rows(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows, every row as long as the header."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
            reader = csv.reader(io.StringIO(text, newline=""), strict=True)
            header = tuple(next(reader, ()))
            rows = []
            for row in reader:
                if len(row) != len(header):
                    cells = f"line {reader.line_num} has {len(row)} cells, the header {len(header)}"
                    raise ReportError(f"{path}: {cells}; damaged or half-written. {REBUILD}")
                rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: not readable as CSV in UTF-8 ({error}). {REBUILD}") from error
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror}); give another folder") from error
    if not header:
        raise ReportError(f"{path}: the file is empty. {REBUILD}")
    if not text.endswith(("\n", "\r")):
        raise ReportError(f"{path}: the last line does not end, so it may be cut off. {REBUILD}")
    if len(set(header)) < len(header):
        raise ReportError(f"{path}: line 1 names a column twice. {REBUILD}")
    return header, rows


def _numbers(path: Path, column: str, texts: list[str]) -> list[float]:
    """Cells as floats; empty, NaN and, where infinity has no meaning, infinite ones are missing."""
    values = []
    for line, text in enumerate(texts, start=2):
        try:
            value = float(text or "nan")
        except ValueError as error:
            raise ReportError(f"{path}: row {line}, column {column}: {text!r} is not a number. {REBUILD}") from error
        if column != "value" and (value < 0 or (column in SHARES and 1 < value < np.inf)):
            meant = "between 0 and 1 (not percent)" if column in SHARES else "0 or more"
            raise ReportError(f"{path}: row {line}, column {column}: {text} must be {meant}. {REBUILD}")
        values.append(value if np.isfinite(value) or column in UNBOUNDED else np.nan)
    return values


def _check_runs(path: Path, runs: pd.DataFrame) -> None:
    """Ids are unique, statuses and kinds known; an empty kind is a plain run."""
    if runs.empty:
        raise ReportError(f"{path}: holds no run, only the header. {REBUILD}")
    runs["kind"] = runs["kind"].where(runs["kind"] != "", "run")
    for column, known in (("status", tuple(STATUSES)), ("kind", KINDS)):
        for line, value in enumerate(runs[column], start=2):
            if value not in known:
                raise ReportError(f"{path}: row {line}: {column} {value!r} is none of {', '.join(known)}. {REBUILD}")
    twice = runs.loc[runs["run_id"].duplicated() | (runs["run_id"] == ""), "run_id"]
    if len(twice):
        raise ReportError(
            f"{path}: row {twice.index[0] + 2}: run_id {twice.iloc[0]!r} is empty or used twice. {REBUILD}"
        )
