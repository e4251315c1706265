"""Records to CSVs: whole, tidy, empty where nothing was measured; the matrix and the table around them."""

import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.collect import collect, csv_text, read_records
from bench.records.json_files import sealed, write_json
from bench.records.record import FILES, SCHEMA_VERSION
from bench.records.results_folder import is_finished, run_folder
from bench.records.run_records import NewerRecordError, read_runs, set_damaged_aside
from bench.records.targets import baselines, comparison_key
from bench.sweep.matrix import TrainingOptions, build_matrix, refusal, with_baseline
from bench.sweep.table import count, result_cells
from strategies import compose, parse_plans

A, B, C = "a" * 12, "b" * 12, "c" * 12


def record(run_id, **row):
    row = {"kind": "run", "strategy": "lora", "seed": 0, "created_at": "2026-01-01", "status": "ok", **row}
    return {
        "schema": SCHEMA_VERSION, "run_id": run_id, "spec": {}, "row": {"run_id": run_id, **row},
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
    write(tmp_path, record(B, kind="control"), record(A, lr=1e-3), record(C, kind="baseline"))
    collect(tmp_path)
    for name, columns in FILES.items():
        assert (tmp_path / name).read_text().splitlines()[0] == ",".join(columns)
    rows = read(tmp_path, "runs.csv")
    assert [row["run_id"] for row in rows] == [C, A, B]
    assert (rows[1]["lr"], rows[0]["lr"]) == ("0.001", "")
    train = dict.fromkeys(FILES["sections.csv"], "") | {"run_id": C, "section": "train", "seconds": "1.5"}
    assert read(tmp_path, "sections.csv")[0] == train
    assert read(tmp_path, "memory.csv")[0] == {"run_id": C, "kind": "weights", "bytes": "4"}
    assert read(tmp_path, "history.csv")[0]["metric"] == "loss"


def test_collecting_is_pure(tmp_path):
    write(tmp_path, record(A))
    collect(tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    collect(tmp_path)
    assert first == {name: (tmp_path / name).read_bytes() for name in FILES}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "runs"])


DAMAGE = {
    "no JSON": "{",
    "no object": "[]",
    "a number": "1e400",
    "half": json.dumps(record(A))[:-9],
    "nothing but a schema": json.dumps({"schema": SCHEMA_VERSION}),
    "an older schema": json.dumps(record(A) | {"schema": 0}),
    "another's id": json.dumps(record(B)),
    "a path for an id": json.dumps(record("../../precious")),
    "a row of another kind": json.dumps(record(A) | {"row": []}),
    "a status that there is not": json.dumps(record(A, status="fine")),
    "words for a number": json.dumps(record(A, ttt_seconds="soon")),
    "no number": json.dumps(record(A, ttt_seconds=float("nan"))),
    "a number for words": json.dumps(record(A, strategy=3)),
    "a point of two parts": json.dumps(record(A) | {"history": [[1, 2]]}),
    "metrics of lists": json.dumps(record(A) | {"metrics": {"eval": [1]}}),
    "a list for a status": json.dumps(record(A, status=["ok"])),
    "a truth for a date": json.dumps(record(A, created_at=True)),
    "no name": json.dumps(record(A, strategy=None)),
    "a number of 400 digits": json.dumps(record(A, ttt_seconds=10**400)),
    "more digits than Python reads": json.dumps(record(A)).replace('"seed": 0', f'"seed": {"9" * 5000}'),
    "brackets within brackets": "[" * 100_000,
    "infinity": json.dumps(record(A, ttt_seconds=float("inf"))),
    "a figure of a section that there is not": json.dumps(record(A) | {"sections": {"train": {"beauty": 1.0}}}),
    "a part that nobody knows": json.dumps(record(A) | {"more": 1}),
    "a digit changed": json.dumps(sealed(record(A, accuracy=0.75))).replace("0.75", "0.95"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_left_out_and_named_and_set_aside(tmp_path, capsys, kind):
    write(tmp_path, record(A), record(C))
    (run_folder(tmp_path, A) / "record.json").write_text(DAMAGE[kind])
    assert [one["run_id"] for one in read_records(tmp_path)] == [C]
    (told,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{tmp_path}/runs/{A}/record\.json: .*; left out", told)
    assert not is_finished(tmp_path, A)
    (line,) = set_damaged_aside(tmp_path)
    assert line.endswith(f"set aside as {tmp_path}/damaged/{A}, its run is not finished")
    assert (tmp_path / "damaged" / A / "record.json").read_text() == DAMAGE[kind]
    write(tmp_path, record(A))
    (run_folder(tmp_path, A) / "record.json").write_text("again")
    assert f"damaged/{A}-2," in set_damaged_aside(tmp_path)[0]
    assert [one["run_id"] for one in read_records(tmp_path)] == [C]


def test_a_whole_record_is_sealed_and_is_the_same_again(tmp_path):
    kept = sealed(record(A, accuracy=0.1 + 0.2, reason="ü\u2028"))
    write(tmp_path, kept)
    assert read_records(tmp_path) == [kept]
    assert not set_damaged_aside(tmp_path)


def test_every_flipped_letter_of_a_record_is_seen(tmp_path):
    write(tmp_path, sealed(record(A, accuracy=0.75, ttt_seconds=12.5)))
    file = run_folder(tmp_path, A) / "record.json"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            records, _ = read_runs(tmp_path)
        except NewerRecordError:
            continue  # told, and nothing is done
        assert not records, f"byte {place} of {content!r}"


def test_a_record_of_a_newer_version_is_neither_used_nor_touched(tmp_path):
    write(tmp_path, record(A) | {"schema": SCHEMA_VERSION + 1})
    with pytest.raises(ValueError, match=rf"runs/{A}/record\.json: written by a newer version.*update the suite"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="newer version"):
        set_damaged_aside(tmp_path)
    with pytest.raises(ValueError, match="newer version"):
        is_finished(tmp_path, A)


def test_a_link_is_no_run(tmp_path):
    write(tmp_path / "elsewhere", record(A), record(B))
    write(tmp_path / "here", record(B))
    run_folder(tmp_path / "here", A).symlink_to(run_folder(tmp_path / "elsewhere", A))
    file = run_folder(tmp_path / "here", B) / "record.json"
    file.unlink()
    file.symlink_to(run_folder(tmp_path / "elsewhere", B) / "record.json")
    assert read_records(tmp_path / "here") == []
    assert len(set_damaged_aside(tmp_path / "here")) == 2
    assert [one["run_id"] for one in read_records(tmp_path / "elsewhere")] == [A, B]


def test_records_that_are_committed_are_whole(root):
    folders = [folder for folder in (root / "results").iterdir() if (folder / "runs").is_dir()]
    found = [read_runs(folder) for folder in folders]
    assert sum(len(records) for records, _ in found) > 500
    assert not [reason for _, damaged in found for _, reason in damaged]


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
