"""The one reader of predictions: SWEEP/predictions.parquet, and what older sweeps have in its place.

bench folds the predictions of all runs into one file at the end of a sweep. Sweeps of earlier versions have a file for
each run instead, runs/<run_id>/predictions.parquet; it is read for runs that the sweep's file lacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from bench.records.record import PREDICTIONS
from report.errors import ReportError
from report.frames.sidecars import SAFE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

NEEDED: Final = frozenset({"id", "score"})


def read_predictions(folder: Path, run_ids: Iterable[str], columns: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Rows of these runs by run id, in the order of evaluation, as far as they are there; only columns that are there.

    ReportError for a file that cannot be read, or lacks ids or scores.
    """
    asked = list(run_ids)
    together = folder / PREDICTIONS
    found: dict[str, pd.DataFrame] = {}
    if together.is_file():
        instead = "delete it and start the sweep again with the same --out, or take it anew from where the sweep came"
        rows = _read(together, ("run_id", *columns), instead, [("run_id", "in", asked)] if asked else None)
        if asked:
            found = {str(run_id): own for run_id, own in rows.groupby("run_id", sort=False, observed=True)}
    for run_id in asked:
        path = folder / "runs" / run_id / PREDICTIONS
        if run_id not in found and SAFE_NAME.fullmatch(run_id) and path.is_file():
            found[run_id] = _read(path, columns, "delete the run's folder", None)
    return found


def _read(path: Path, columns: Sequence[str], instead: str, filters: Any) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        there = pq.read_schema(path).names
        if not NEEDED.issubset(there):
            raise ReportError(f"{path}: has no columns id and score; {instead}")
        table = pq.read_table(path, columns=[name for name in columns if name in there], filters=filters)
        frame: pd.DataFrame = table.to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise ReportError(f"{path}: not readable as predictions ({error}); {instead}") from error
    return frame
