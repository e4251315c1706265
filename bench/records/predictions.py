"""What every run answered: one file a sweep, folded from one file a run.

A run's own process writes runs/<run_id>/predictions.parquet, so a run that ended has its answers whatever becomes of
the sweep. Hundreds of small files are slow to copy, and each repeats the ids of all questions: at the end of a sweep
they are folded into SWEEP/predictions.parquet, which is what is read, sent and committed. pyarrow is imported where a
file is read or written, as the sweep's own process has to start at once.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from bench.records.files import put, sync
from bench.records.record import PREDICTION_COLUMNS, PREDICTIONS
from bench.task import Prediction

GROUP_ROWS: Final = 2**20  # rows held in memory at a time
COMPRESSION: Final[dict[str, Any]] = {"compression": "zstd", "compression_level": 9}


def write_run(folder: Path, predictions: Sequence[Prediction], per_example: Mapping[Any, float]) -> None:
    """Write the file of one run, whole or not at all. per_example: score by example id."""
    import pyarrow as pa

    columns: Mapping[str, list[Any]] = {
        "id": [p["id"] for p in predictions],
        "prediction": [str(p["prediction"]) for p in predictions],
        "probability": [float(p["probability"]) for p in predictions],
        "score": [float(per_example[p["id"]]) for p in predictions],
    }
    table = pa.table(columns)
    _write(folder / PREDICTIONS, table.schema, iter([table]))


def is_scored(record: Mapping[str, Any]) -> bool:
    """Whether the run of this record came as far as to have predictions."""
    return "eval" in record["metrics"]


def join_predictions(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Build a sweep's file anew from its runs' own files, sorted by run.

    Rows of a run whose own file is not there, as in a clone, are kept; those of a run without a record, or that ran
    again and came to no prediction, are not. ValueError names a file that cannot be read.
    """
    own = {record["run_id"]: path for record in records if (path := _own(folder, record["run_id"])).is_file()}
    kept = {record["run_id"] for record in records if is_scored(record)} - set(own)
    together = folder / PREDICTIONS
    earlier = [together] if together.is_file() else []
    if not own and all(_run_ids(path) <= kept for path in earlier):
        return
    schema = _schema([*own.values(), *earlier])
    parts = [((run_id, _read(own[run_id])) for run_id in sorted(own)), *(_rows_of(path, kept) for path in earlier)]
    _write(together, schema, (_part(*part, schema) for part in heapq.merge(*parts, key=itemgetter(0))))


def give_own(source: Path, run_id: str, target: Path) -> None:
    """Write a run's own file to the folder `target` from its sweep's file in `source`, where it has rows there."""
    together = source / PREDICTIONS
    for _, rows in _rows_of(together, {run_id}) if together.is_file() else ():
        table = rows.drop_columns(["run_id"])
        _write(target / PREDICTIONS, table.schema, iter([table]))


def _own(folder: Path, run_id: str) -> Path:
    return folder / "runs" / run_id / PREDICTIONS


def _damaged(path: Path, error: Exception) -> ValueError:
    own = path.parent.parent.name == "runs"
    what = "delete the run's folder and run it anew" if own else "delete it: it is made from the runs' own files again"
    return ValueError(f"{path}: not readable as predictions ({error}); {what}")


def _read(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _run_ids(path: Path) -> set[str]:
    return {run_id for run_id, _ in _rows_of(path, None)}


def _rows_of(path: Path, wanted: set[str] | None) -> Iterator[tuple[str, Any]]:
    """Run ids and rows of a sweep's file, in its order; None stands for all runs."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for place in range(file.num_row_groups):
            group = file.read_row_group(place)
            ids = group["run_id"].cast(pa.string())
            for run_id in pc.unique(ids).to_pylist():
                if wanted is None or run_id in wanted:
                    yield run_id, group.filter(pc.equal(ids, run_id))
    except (pa.ArrowException, KeyError, OSError) as error:
        raise _damaged(path, error) from error


def _schema(paths: Sequence[Path]) -> Any:
    """Columns of the sweep's file; ids keep their type where all runs have the same, else they are text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = set()
    for path in paths:
        try:
            types.add(pq.read_schema(path).field("id").type)
        except (pa.ArrowException, KeyError, OSError) as error:
            raise _damaged(path, error) from error
    kinds = {
        "run_id": pa.dictionary(pa.int32(), pa.string()), "id": types.pop() if len(types) == 1 else pa.string(),
        "prediction": pa.string(), "probability": pa.float64(), "score": pa.float64(),
    }  # fmt: skip
    return pa.schema([(name, kinds[name]) for name in PREDICTION_COLUMNS])


def _part(run_id: str, rows: Any, schema: Any) -> Any:
    """The rows of a run with the columns of `schema`; one that they lack is empty."""
    import pyarrow as pa

    there = {name: rows[name] for name in rows.column_names} | {"run_id": pa.array([run_id] * len(rows))}
    columns = [
        there[field.name].cast(field.type) if field.name in there else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _write(path: Path, schema: Any, parts: Iterator[Any]) -> None:
    """Write tables as one file, which is there whole or not at all; a row group holds whole parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    waiting: list[Any] = []

    def flush() -> None:
        if waiting:
            group = pa.concat_tables(waiting).unify_dictionaries()
            writer.write_table(group, row_group_size=max(1, len(group)))
            waiting.clear()

    try:
        with pq.ParquetWriter(partial, schema, **COMPRESSION) as writer:
            for part in parts:
                waiting.append(part)
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    flush()
            flush()
        sync(partial)
        put(partial, path)
    finally:
        partial.unlink(missing_ok=True)
