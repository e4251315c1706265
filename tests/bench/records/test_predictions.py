"""One file of predictions a sweep: folded from the runs' own, kept in a clone, replaced by a run that ran again."""

import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.commands.merge import merge
from bench.records.collect import collect
from bench.records.json_files import write_json
from bench.records.predictions import give_own, join_predictions, write_run
from bench.records.record import PREDICTION_COLUMNS, SCHEMA_VERSION

A, AB, B, C, D = (f"{start:0<12}" for start in ("a", "ab", "b", "c", "d"))


def record(run_id, *, scored=True, **row):
    row = {"run_id": run_id, "kind": "run", "strategy": "lora", "seed": 0, "created_at": "2026", "status": "ok",
           "device": "cpu", **row}  # fmt: skip
    metrics = {"eval": {"accuracy": 0.5}} if scored else {}
    return {"schema": SCHEMA_VERSION, "run_id": run_id, "spec": {}, "row": row, "sections": {}, "history": [],
            "metrics": metrics, "memory": {}}  # fmt: skip


def ran(folder, run_id, answers, first=0):
    """Write record and own file of a run that answered these to questions `first`, `first` + 1, …"""
    write_json(folder / "runs" / run_id / "record.json", record(run_id))
    ids = [first + place if isinstance(first, int) else f"{first}{place}" for place in range(len(answers))]
    given = [{"id": i, "prediction": a, "probability": 0.1 + 0.2} for i, a in zip(ids, answers, strict=True)]
    write_run(folder / "runs" / run_id, given, dict.fromkeys(ids, 1 / 3))


def own(folder, run_id):
    return folder / "runs" / run_id / "predictions.parquet"


def clone(folder, place):
    """What git gives of a sweep: everything but the runs' own files."""
    return shutil.copytree(folder, place, ignore=lambda at, names: [n for n in names if at != str(folder)
                           and n == "predictions.parquet"])  # fmt: skip


def answers(folder):
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    found = {}
    for row in rows:
        found.setdefault(row["run_id"], []).append(row["prediction"])
    return found


@pytest.fixture
def sweep(tmp_path):
    for run_id, given in ((B, ["yes", "no"]), (A, ["red"]), (C, ["2", "two", ""])):
        ran(tmp_path / "sweep", run_id, given)
    collect(tmp_path / "sweep")
    return tmp_path / "sweep"


def test_every_row_of_every_run_is_in_the_sweeps_file(sweep):
    table = pq.read_table(sweep / "predictions.parquet")
    assert table.column_names == list(PREDICTION_COLUMNS)
    assert table.schema.field("run_id").type == pa.dictionary(pa.int32(), pa.string())
    assert table["run_id"].to_pylist() == [A, B, B, C, C, C]
    rows = table.drop_columns(["run_id"])
    assert rows.equals(pa.concat_tables(pq.read_table(own(sweep, run_id)) for run_id in (A, B, C))), "to the bit"
    meta = pq.ParquetFile(sweep / "predictions.parquet").metadata.row_group(0).column(2)
    assert meta.compression == "ZSTD"


def test_folding_is_pure_and_leaves_nothing_half_written(sweep):
    first = (sweep / "predictions.parquet").read_bytes()
    collect(sweep)
    assert (sweep / "predictions.parquet").read_bytes() == first
    assert not list(sweep.rglob(".*"))


def test_a_clone_keeps_its_rows(sweep, tmp_path):
    copy = clone(sweep, tmp_path / "clone")
    stamp = (copy / "predictions.parquet").stat().st_mtime_ns
    collect(copy)
    assert (copy / "predictions.parquet").stat().st_mtime_ns == stamp, "there is nothing to do"
    ran(copy, AB, ["new"])
    collect(copy)
    assert answers(copy) == {A: ["red"], AB: ["new"], B: ["yes", "no"], C: ["2", "two", ""]}
    assert list(answers(copy)) == [A, AB, B, C]


def test_a_run_that_runs_again_replaces_its_rows(sweep, tmp_path):
    copy = clone(sweep, tmp_path / "clone")
    ran(copy, B, ["no", "no", "no"])
    collect(copy)
    assert answers(copy) == {A: ["red"], B: ["no", "no", "no"], C: ["2", "two", ""]}


def test_a_run_that_failed_the_second_time_or_is_gone_has_no_rows(sweep, tmp_path):
    copy = clone(sweep, tmp_path / "clone")
    shutil.rmtree(copy / "runs" / A)
    write_json(copy / "runs" / C / "record.json", record(C, scored=False, status="failed"))
    collect(copy)
    assert answers(copy) == {B: ["yes", "no"]}


def test_ids_of_two_kinds_become_text_and_stay_so(tmp_path):
    ran(tmp_path, A, ["x", "y"], first=7)
    ran(tmp_path, B, ["z"], first="q")
    collect(tmp_path)
    collect(clone(tmp_path, tmp_path / "clone"))
    for folder in (tmp_path, tmp_path / "clone"):
        assert pq.read_table(folder / "predictions.parquet")["id"].to_pylist() == ["7", "8", "q0"]


def test_many_runs_are_written_in_groups_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.records.predictions.GROUP_ROWS", 4)
    for number in range(6):
        ran(tmp_path / "one", f"{number:012}", ["x"] * (number + 1))
    collect(tmp_path / "one")
    assert pq.ParquetFile(tmp_path / "one" / "predictions.parquet").num_row_groups == 4
    copy = clone(tmp_path / "one", tmp_path / "clone")
    ran(copy, f"{3:012}", ["y"])
    collect(copy)
    assert {run_id: len(given) for run_id, given in answers(copy).items()} == {
        f"{number:012}": rows for number, rows in enumerate([1, 2, 3, 1, 5, 6])
    }


def test_a_run_gets_its_own_file_back(sweep, tmp_path):
    give_own(sweep, C, tmp_path)
    assert pq.read_table(tmp_path / "predictions.parquet").equals(pq.read_table(own(sweep, C)))
    give_own(sweep, "unknown", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_merge_of_clones_joins_them_and_is_completed_by_the_same_command(sweep, tmp_path):
    ran(tmp_path / "other", D, ["up"])
    ran(tmp_path / "other", B, ["other"])
    collect(tmp_path / "other")
    parts = [clone(folder, tmp_path / f"clone-{folder.name}") for folder in (sweep, tmp_path / "other")]
    for folder in parts:
        write_json(folder / "sweep.json", {})
    merge(parts, tmp_path / "all", ["merge"], weights=False)
    whole = {A: ["red"], B: ["yes", "no"], C: ["2", "two", ""], D: ["up"]}
    assert answers(tmp_path / "all") == whole
    (tmp_path / "all" / "predictions.parquet").unlink()  # as if it had been stopped after the copies
    merge(parts, tmp_path / "all", ["merge"], weights=False)
    assert answers(tmp_path / "all") == whole


def test_damaged_files_are_named_and_nothing_is_lost(sweep):
    before = (sweep / "predictions.parquet").read_bytes()
    own(sweep, B).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"runs/b0+/predictions\.parquet: not readable.*delete the run's folder"):
        collect(sweep)
    assert (sweep / "predictions.parquet").read_bytes() == before
    assert not list(sweep.rglob(".*"))
    shutil.rmtree(sweep / "runs" / B)
    (sweep / "predictions.parquet").write_bytes(before[:200])
    with pytest.raises(ValueError, match=r"sweep/predictions\.parquet: not readable.*delete it"):
        collect(sweep)
    (sweep / "predictions.parquet").unlink()
    collect(sweep)
    assert list(answers(sweep)) == [A, C]


def test_without_predictions_there_is_no_file(tmp_path):
    write_json(tmp_path / "runs" / A / "record.json", record(A))
    join_predictions(tmp_path, [record(A)])
    assert not (tmp_path / "predictions.parquet").exists()


def test_the_sweeps_own_process_loads_neither_torch_nor_pyarrow_before_it_folds(root):
    code = "import sys, bench.sweep.run, bench.commands.merge; print({'torch', 'pyarrow'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
