"""Records to CSVs: whole, tidy, empty where nothing was measured; the matrix and the table around them."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.collect import collect, csv_text, read_records
from bench.records.record import FILES, SCHEMA_VERSION, write_json
from bench.records.targets import baselines, comparison_key
from bench.sweep.matrix import TrainingOptions, build_matrix, refusal, with_baseline
from bench.sweep.table import count, result_cells
from strategies import compose, parse_plans


def record(run_id, **row):
    row = {"kind": "run", "strategy": "lora", "seed": 0, "created_at": "2026-01-01", "status": "ok", **row}
    return {
        "schema": SCHEMA_VERSION, "run_id": run_id, "row": {"run_id": run_id, **row},
        "sections": {"train": {"seconds": 1.5}},
        "history": [[20, 1.0, "train", "loss", 0.5]], "metrics": {"eval": {"accuracy": 0.25}}, "memory": {"weights": 4},
    }  # fmt: skip


def write(folder, *records):
    for one in records:
        write_json(folder / "runs" / one["run_id"] / "record.json", one)


def read(folder, name):
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_every_file_has_exactly_its_columns(tmp_path):
    write(tmp_path, record("b", kind="control"), record("a", lr=1e-3), record("c", kind="baseline"))
    collect(tmp_path)
    for name, columns in FILES.items():
        assert (tmp_path / name).read_text().splitlines()[0] == ",".join(columns)
    rows = read(tmp_path, "runs.csv")
    assert [row["run_id"] for row in rows] == ["c", "a", "b"]
    assert (rows[1]["lr"], rows[0]["lr"]) == ("0.001", "")
    train = dict.fromkeys(FILES["sections.csv"], "") | {"run_id": "c", "section": "train", "seconds": "1.5"}
    assert read(tmp_path, "sections.csv")[0] == train
    assert read(tmp_path, "memory.csv")[0] == {"run_id": "c", "kind": "weights", "bytes": "4"}
    assert read(tmp_path, "history.csv")[0]["metric"] == "loss"


def test_collecting_is_pure(tmp_path):
    write(tmp_path, record("a"))
    collect(tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    collect(tmp_path)
    assert first == {name: (tmp_path / name).read_bytes() for name in FILES}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "runs"])


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"schema": SCHEMA_VERSION + 1})])
def test_a_damaged_record_is_named(tmp_path, text):
    write(tmp_path, record("a"))
    path = tmp_path / "runs" / "a" / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"runs/a/record\.json"):
        read_records(tmp_path)


@given(
    st.lists(st.fixed_dictionaries({"a": st.none() | st.integers() | st.text("ab ,\"';=\n\u00e9\u4e2d")}), min_size=1)
)
def test_csv_survives_any_text(rows):
    back = [row["a"] for row in csv.DictReader(io.StringIO(csv_text(["a"], rows)))]
    written = [row["a"] for row in rows if row["a"] not in ("", None)]
    assert [value for value in back if value] == [str(value) for value in written]


PREPARED = {
    "device": "cpu",
    "main": {
        "task": "m:T", "task_text": "m:T()", "task_options": {}, "data": "d", "model": "m", "dataset": "data",
        "model_name": "net", "changed": "size=3", "epochs": 2, "batch_size": 8,
    },
    "predicted_peak_bytes": {"full": 900, "lora": 500}, "model_flops_per_sample": 1e6,
    "problems": {"full": [], "lora": [], "nf4": [{"kind": "capability", "reason": "needs a frozen base"}]},
    "controls": {},
}  # fmt: skip


def test_the_baseline_comes_first_and_once():
    for text, wanted, expected in [
        ("lora", True, ["full", "lora"]),
        ("lora,full", True, ["full", "lora"]),
        ("lora", False, ["lora"]),
        ("lora,full", False, ["full", "lora"]),
    ]:
        assert [named.text for named in with_baseline(parse_plans(text), include=wanted)] == expected


def test_the_matrix_is_plans_times_seeds_with_their_own_rates():
    prepared = PREPARED | {"controls": {"blind": PREPARED["main"] | {"data": "x"}}}
    specs = build_matrix(with_baseline(parse_plans("lora,nf4"), include=True), prepared, TrainingOptions(seeds=[0, 1]))
    assert [(s.strategy, s.seed, s.kind) for s in specs[:4]] == [
        ("full", 0, "baseline"), ("lora", 0, "run"), ("nf4", 0, "run"), ("blind", 0, "control")
    ]  # fmt: skip
    assert len({spec.run_id for spec in specs}) == len(specs) == 8
    assert {spec.setting for spec in specs} == {"size=3, 2 epochs, data d, model m"}
    assert specs[1].lr == compose("lora").rates().lr
    assert [spec.predicted_peak_bytes for spec in specs[:4]] == [900, 500, None, None]
    assert specs[2].refusal == {"status": "refused", "reason": "needs a frozen base"}
    assert (specs[0].epochs, specs[0].batch_size, specs[0].max_steps) == (2.0, 8, None)


def test_a_given_rate_holds_for_the_recipe_or_for_all():
    plans = with_baseline(parse_plans("lora"), include=True)
    for everyone in (False, True):
        specs = build_matrix(plans, PREPARED, TrainingOptions(seeds=[0], lr=0.5, lr_for_all=everyone))
        assert [spec.lr == 0.5 for spec in specs] == [everyone, True]


def test_only_missing_support_is_unavailable():
    missing, wrong = {"kind": "unavailable", "reason": "no GPU"}, {"kind": "slot", "reason": "both"}
    assert refusal([]) is None
    assert refusal([missing]) == {"status": "unavailable", "reason": "no GPU"}
    assert refusal([missing, wrong]) == {"status": "refused", "reason": "no GPU; both"}


def test_ratios_are_against_the_full_fine_tune_of_the_same_seed():
    base = {
        "kind": "baseline",
        "strategy": "full",
        "seed": 0,
        "status": "ok",
        "ttt_seconds": 2.0,
        "peak_allocated_bytes": 2**20,
    }
    other = {**base, "seed": 1, "ttt_seconds": 100.0}
    row = {**base, "kind": "run", "strategy": "lora", "ttt_seconds": 1.0, "trainable_parameters": 1500}
    rows = [base, other, row]
    reference = baselines(rows)[comparison_key(row)]
    assert reference is base
    cells = result_cells(row, reference)
    assert cells[0] == "lora"
    assert "1.0 s (0.50×)" in cells
    assert "1.0 MiB (1.00×)" in cells
    assert [count(1500), count(12), count(2.5e6), count(None)] == ["1.5 k", "12", "2.5 M", ""]
