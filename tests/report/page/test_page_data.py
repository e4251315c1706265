"""What the page computes ahead: columns, differences of any two, commands, curves."""

import json
import shlex
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from bench.commands.arguments import make_parser
from bench.records.record import DISTURBANCE_COLUMNS, RUN_COLUMNS
from report.frames.compare import compare
from report.frames.inference import two_recipes, two_runs
from report.frames.paired import read_scores
from report.frames.results import load
from report.page import differences
from report.page.columns import columns
from report.page.command import run_command, sweep_command
from report.page.data import NEVER, number


def place(pairs, one, other):
    i, j = sorted((one, other))
    return i * len(pairs["members"]) - i * (i + 1) // 2 + j - i - 1


def test_numbers_for_json():
    found = [number(value) for value in (float("nan"), float("inf"), 3.0, 0.1234567, 2.5e9)]
    assert found == [None, NEVER, 3, 0.123457, 2_500_000_000]


def test_columns_know_their_kind_and_which_direction_is_better(sweep):
    runs = load(sweep()).runs
    found, empty = columns(runs)
    known = {column["key"]: (column["kind"], column["better"]) for column in found}
    assert known["vqa_accuracy"] == ("share", "high")
    assert known["ttt_seconds"] == ("seconds", "low")
    assert known["peak_allocated_bytes"] == ("bytes", "low")
    assert known["samples_per_second"] == ("rate", "high")
    assert known["seed"] == ("number", "")
    assert known["strategy"] == ("text", "")
    assert "mfu" in empty
    assert set(known) | set(empty) == set(RUN_COLUMNS) - set(DISTURBANCE_COLUMNS), "nothing seen, nothing to name"
    assert all(column["help"] and column["name"] for column in found)


def test_every_pair_of_runs_is_what_inference_says(sweep, row, data_of):
    names = ("full", "lora", "freeze", "qlora")
    folder = sweep([row(name, seed=seed) for name in names for seed in (0, 1)])
    data = data_of(folder)
    scores = read_scores(folder, load(folder).runs["run_id"])
    ids, pairs = data["runs"]["run_id"], data["pairs"]
    assert pairs["members"] == list(range(8))
    for i, j in combinations(range(8), 2):
        gap = (scores[ids[i]] - scores[ids[j]]).to_numpy()
        expected, at = two_runs(gap), place(pairs, i, j)
        found = [pairs[key][at] for key in ("difference", "low", "high")]
        assert found == pytest.approx(expected[:3], abs=1e-6)
        assert [pairs["ahead"][at], pairs["behind"][at]] == [(gap > 0).sum(), (gap < 0).sum()]


def test_recipes_are_compared_over_the_seeds_they_share(sweep, row, data_of):
    rows = [row(name, seed=seed) for name in ("full", "lora", "freeze") for seed in (0, 1, 2)]
    folder = sweep([one for one in rows if (one["strategy"], one["seed"]) != ("lora", 2)])
    pairs = data_of(folder)["settings"][0]["pairs"]
    scores = read_scores(folder, pd.Series([one["run_id"] for one in rows]))
    ids = {(one["strategy"], one["seed"]): one["run_id"] for one in rows}
    for one, other, seeds in (("full", "lora", 2), ("lora", "freeze", 2), ("full", "freeze", 3)):
        members = pairs["members"]
        gaps = np.stack([scores[ids[one, seed]] - scores[ids[other, seed]] for seed in range(seeds)])
        sign = 1 if members.index(one) < members.index(other) else -1
        at = place(pairs, members.index(one), members.index(other))
        assert sign * pairs["difference"][at] == pytest.approx(two_recipes(gaps).difference, abs=1e-6)
        assert pairs["high"][at] - pairs["low"][at] == pytest.approx(
            two_recipes(gaps).high - two_recipes(gaps).low, abs=3e-6
        )


def test_one_seed_compares_no_recipes(sweep, data_of):
    assert data_of(sweep())["settings"][0]["pairs"] is None


def test_too_many_pairs_leave_those_with_the_baseline_and_say_so(sweep, row, monkeypatch, data_of):
    monkeypatch.setattr(differences, "MAX_PAIRS", 2)
    folder = sweep([row(name) for name in ("full", "lora", "freeze")])
    data = data_of(folder)
    assert data["pairs"] is None
    assert "3 runs make too many pairs" in data["no_pairs"]
    ids = data["runs"]["run_id"]
    table = compare(load(folder))[0].paired.query("level == 'run'").set_index("run_id")
    assert len(data["baselines"]) == 2
    for found in data["baselines"]:
        assert found["difference"] == pytest.approx(table.loc[ids[found["run"]], "difference"], abs=1e-6)


def test_runs_on_other_data_are_not_paired(sweep, row, data_of):
    data = data_of(sweep([row("full"), row("lora"), row("freeze", dataset="another")]))
    assert data["pairs"]["questions"] == [200, 0, 0]


def test_without_predictions_there_are_no_differences(sweep, data_of):
    data = data_of(sweep(predictions=False))
    assert data["pairs"] is None
    assert "no two runs have scores" in data["no_pairs"]
    assert data["baselines"] == []


def test_long_curves_are_thinned_to_their_ends(sweep, monkeypatch, data_of):
    monkeypatch.setattr("report.page.data.MAX_POINTS", 50)
    folder = sweep()
    data = data_of(folder)
    history = load(folder).history
    for run_id, curves in data["curves"].items():
        steps = curves["train loss"][0]
        assert len(steps) <= 12
        assert steps[-1] == history[(history["run_id"] == run_id) & (history["split"] == "train")]["step"].max()
    assert "learning curve" in data["notes"][0]


def test_commands_are_accepted_by_the_command_line(root):
    """Those of every committed run."""
    parser, seen = make_parser(), 0
    for folder in sorted((root / "results").glob("*/")):
        if not (folder / "runs.csv").is_file():
            continue
        words = json.loads((folder / "sweep.json").read_text())["command"]
        for row in load(folder).runs.to_dict("records"):
            record = json.loads((folder / "runs" / row["run_id"] / "record.json").read_text())
            command, _ = run_command(row, record["spec"], words)
            python, script, *given = shlex.split(command)
            assert python == "python"
            if script == "run_matrix.py":
                arguments = parser.parse_args(given)
                assert row["kind"] == "control" or arguments.seeds == [row["seed"]]
                assert row["kind"] == "control" or arguments.strategies == row["strategy"]
                seen += 1
    assert seen > 200


def test_a_command_keeps_what_decides_the_run(row):
    spec = {"task_text": "vqa_model.task:VQATask(towers='random')", "epochs": 2.0, "max_steps": 7}
    tuned = row("lora(r=4)", seed=3) | {"tuned_rates": "0.1=0.5", "lr": 0.003}
    command, note = run_command(tuned, spec, ["--tune", "3"])
    assert command == (
        "python run_matrix.py --task 'vqa_model.task:VQATask(towers='\"'\"'random'\"'\"')' --strategies 'lora(r=4)' "
        "--seeds 3 --batch-size 64 --epochs 2 --max-steps 7 --lr 0.003 --no-baseline --out results/again"
    )
    assert "tuned" in note
    control = row("majority-answer") | {"tuned_rates": ""}
    assert run_command(control, {}, ["--out", "x"])[0] == "python run_matrix.py --out x"
    assert sweep_command(["performance/gpu_reference.py"]) == "python performance/gpu_reference.py"
