"""Records to tidy CSVs, and predictions to one file: rebuilt whole every time, never appended to."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.files import write_text
from bench.records.predictions import join_predictions
from bench.records.record import FILES, MEMORY_KINDS, RUN_COLUMNS
from bench.records.run_records import Record, read_runs
from bench.records.targets import time_to_target

KIND_ORDER = {"baseline": 0, "run": 1, "control": 2, "tuning": 3}


def read_records(folder: Path) -> list[Record]:
    """Every whole record of a sweep, in the order the runs were asked for within kind and seed.

    What is damaged is left out, with a line on stderr for each. ValueError for a record of a newer version.
    """
    records, damaged = read_runs(folder)
    for _, reason in damaged:
        print(f"{reason}; left out", file=sys.stderr)
    return sorted(records, key=_order)


def _order(record: Record) -> tuple[Any, ...]:
    row = record["row"]
    return (KIND_ORDER[row["kind"]], row["created_at"], row["seed"], row["strategy"])


def tables(records: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Rows of every CSV, by file name."""
    reached = time_to_target(records)
    rows = [{**record["row"], **reached.get(record["run_id"], {})} for record in records]
    return {
        "runs.csv": [{column: row.get(column) for column in RUN_COLUMNS} for row in rows],
        "history.csv": [
            {"run_id": record["run_id"], **dict(zip(list(FILES["history.csv"])[1:], point, strict=True))}
            for record in records for point in record["history"]
        ],
        "metrics.csv": [
            {"run_id": record["run_id"], "split": split, "metric": metric, "value": value}
            for record in records for split, values in record["metrics"].items() for metric, value in values.items()
        ],
        "sections.csv": [
            {"run_id": record["run_id"], "section": name, **values}
            for record in records for name, values in record["sections"].items()
        ],
        "memory.csv": [
            {"run_id": record["run_id"], "kind": kind, "bytes": record["memory"][kind]}
            for record in records for kind in MEMORY_KINDS if kind in record["memory"]
        ],
    }  # fmt: skip


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header; a missing value is an empty cell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(columns), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def collect(folder: Path) -> list[Record]:
    """Rebuild a sweep's CSVs from its records, join its runs' predictions in one file, and return the records."""
    records = read_records(folder)
    for name, rows in tables(records).items():
        write_text(folder / name, csv_text(FILES[name], rows))
    join_predictions(folder, records)
    return records
