"""Time to the target: against the baseline of the same seed and setting, from evaluations on the tune set."""

import csv
import math

from hypothesis import given
from hypothesis import strategies as st

from bench.records.collect import collect
from bench.records.json_files import write_json
from bench.records.record import SCHEMA_VERSION, TARGET_SHARE
from bench.records.targets import baselines, comparison_key, time_to_target

PACE = 0.5  # seconds per step


def record(run_id, accuracies, *, kind="run", **row):
    """A run evaluated every 10 steps."""
    history = [[10 * n, PACE * 10 * n, "tune", "accuracy", value] for n, value in enumerate(accuracies, 1)]
    history.append([5, 1.0, "train", "accuracy", 1.0])
    row = {"run_id": run_id, "kind": kind, "strategy": run_id, "seed": 0, "status": "ok", "created_at": "", **row}
    return {"schema": SCHEMA_VERSION, "run_id": run_id, "spec": {}, "row": row, "history": history,
            "sections": {}, "metrics": {}, "memory": {}}  # fmt: skip


FULL = record("full", [0.5, 0.7, 0.9, 0.8], kind="baseline")


def found(*records):
    return {key: tuple(value.values()) for key, value in time_to_target([FULL, *records]).items()}


def test_first_evaluation_at_the_target_counts_with_the_set_up():
    slow = record("slow", [0.1, 0.2, 0.776, 0.9], setup_seconds=2.0)
    assert found(slow) == {"full": (15.0, 30), "slow": (17.0, 30)}


def test_a_miss_is_infinite_a_stopped_run_is_not_known():
    never = record("never", [0.1, 0.775])
    assert found(never, record("stopped", [0.1], status="timeout"), record("blank", [])) == {
        "full": (15.0, 30), "never": (math.inf, math.inf)
    }  # fmt: skip


def test_there_is_no_target_without_the_same_seed_and_setting():
    others = [record(name, [0.9], **{name: 1}) for name in ("seed", "setting", "batch_size", "task")]
    assert found(*others).keys() == {"full"}
    failed = FULL | {"row": FULL["row"] | {"status": "timeout"}}
    assert time_to_target([failed, record("lora", [0.9])]) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_the_target_was_missed_until_then(mine, base):
    records = [record("full", base, kind="baseline"), record("lora", mine)]
    steps = time_to_target(records)["lora"]["steps_to_target"]
    before = mine if math.isinf(steps) else mine[: int(steps) // 10 - 1]
    assert all(value < TARGET_SHARE * base[-1] for value in before)
    assert time_to_target(records)["full"]["steps_to_target"] <= 10 * len(base)


def test_it_is_rebuilt_with_the_csvs(tmp_path):
    lora, full = "1" * 12, "f" * 12
    write_json(tmp_path / "runs" / lora / "record.json", record(lora, [0.1]))
    collect(tmp_path)
    assert cells(tmp_path) == {lora: ""}
    write_json(tmp_path / "runs" / full / "record.json", FULL | {"run_id": full, "row": FULL["row"] | {"run_id": full}})
    collect(tmp_path)
    assert cells(tmp_path) == {full: "15", lora: "inf"}


def cells(folder):
    with (folder / "runs.csv").open() as file:
        return {row["run_id"]: row["time_to_target_seconds"] for row in csv.DictReader(file)}


def test_the_last_baseline_of_a_setting_counts():
    rows = [record(name, [], kind="baseline")["row"] for name in ("a", "b")]
    assert baselines([*rows, record("c", [])["row"]])[comparison_key(rows[0])] is rows[1]
