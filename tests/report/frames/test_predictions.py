"""Predictions are read from the sweep's file, or from the runs' own files of earlier versions, with one result."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.records.predictions import join_predictions
from report.errors import ReportError
from report.frames.compare import compare
from report.frames.predictions import read_predictions
from report.frames.results import load


@pytest.fixture
def three(sweep, row):
    """A sweep of three runs with files of their own, and its run ids."""
    rows = [row(name) for name in ("full", "lora", "qlora")]
    return sweep(rows), [one["run_id"] for one in rows]


def folded(folder, ids):
    join_predictions(folder, [{"run_id": run_id, "metrics": {"eval": {}}} for run_id in ids])
    for run_id in ids:
        (folder / "runs" / run_id / "predictions.parquet").unlink()


def test_both_places_say_the_same(three):
    folder, ids = three
    own, told = read_predictions(folder, ids, ("id", "score")), compare(load(folder))[0].paired
    folded(folder, ids)
    together = read_predictions(folder, ids, ("id", "score"))
    assert list(own) == ids
    assert set(together) == set(ids)
    for run_id in ids:
        for column in ("id", "score"):
            assert together[run_id][column].tolist() == own[run_id][column].tolist()
    assert len(told)
    pd.testing.assert_frame_equal(compare(load(folder))[0].paired, told)


def test_only_runs_that_are_asked_for(three):
    folder, ids = three
    folded(folder, ids)
    assert list(read_predictions(folder, ids[1:2], ("score",))) == ids[1:2]
    assert read_predictions(folder, [], ("score",)) == {}
    assert read_predictions(folder, ["unknown", "../runs"], ("score",)) == {}


def test_a_run_that_the_sweeps_file_lacks_may_have_its_own(three, row, predictions):
    folder, ids = three
    folded(folder, ids)
    predictions(folder, row("dora"), [0.25, 0.5])
    found = read_predictions(folder, [*ids, row("dora")["run_id"]], ("id", "score"))
    assert found[row("dora")["run_id"]]["score"].tolist() == [0.25, 0.5]
    assert len(found) == 4


def test_what_is_no_file_of_predictions_is_named(three):
    folder, ids = three
    folded(folder, ids)
    path = folder / "predictions.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ReportError, match=r"sweep/predictions\.parquet: not readable.*with the same --out"):
        compare(load(folder))
    pq.write_table(pa.table({"run_id": ids, "id": [1, 2, 3]}), path)
    with pytest.raises(ReportError, match=r"has no columns id and score"):
        compare(load(folder))
