"""Choosing rates with an equal budget: grid and choice as properties, then a real sweep that grows and goes back."""

import csv
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.json_files import read_json
from bench.sweep.tuning import best_trial, grid, make_trials, spent_seconds, tunable, tuned_rate, tuning_columns
from report.frames.learning_rates import parse_trials
from tests.bench.records.test_spec import BASE

TASK = "tests.bench.faulty_task:FaultyTask(items=64)"


@given(st.integers(2, 12))
def test_a_grid_lies_around_the_default(number):
    factors = grid(number)
    assert len(factors) == number == len(set(factors))
    assert factors == sorted(factors)
    assert factors.index(1.0) == (number - 1) // 2
    assert all(math.isclose(above / below, 10**0.5) for below, above in pairwise(factors))


@given(st.integers(2, 6), st.floats(1e-6, 1), st.booleans())
def test_trials_differ_in_one_rate_and_hold_the_run_itself(number, rate, head_only):
    spec = replace(BASE, lr=None, head_lr=rate) if head_only else replace(BASE, lr=rate)
    tried = make_trials(spec, number)
    assert len({run.run_id for run in tried}) == number
    assert spec.run_id in {run.run_id for run in tried}
    part = "head_lr" if head_only else "lr"
    for run in tried:
        assert replace(run, kind=spec.kind, **{part: rate}) == spec
        assert run.kind == "tuning"


@given(st.lists(st.one_of(st.none(), st.integers(0, 4).map(lambda n: n / 4)), min_size=2, max_size=5))
def test_the_best_is_chosen_and_the_default_of_equals(scores):
    spec = replace(BASE, lr=1e-3)
    tried = list(zip(make_trials(spec, len(scores)), scores, strict=True))
    chosen = best_trial(tried, spec)
    known = [score for score in scores if score is not None]
    if not known:
        assert chosen.run_id == spec.run_id
        return
    best = [run for run, score in tried if score == max(known)]
    assert chosen in best
    assert (chosen.run_id == spec.run_id) == (spec.run_id in {run.run_id for run in best})
    told = tuning_columns(tried, 3.0)
    assert (told["tuning_best"], told["tuning_spread"]) == (max(known), max(known) - min(known))
    read = parse_trials(told["tuned_rates"])
    assert [rate for rate, _ in read] == [tuned_rate(run)[1] for run, _ in tried]
    assert [None if math.isnan(score) else score for _, score in read] == scores


def test_what_trials_cost_is_not_known_where_one_was_disturbed():
    tried = [(run, 0.5) for run in make_trials(BASE, 2)]
    assert tuning_columns(tried, 3.0)["tuning_seconds"] == 3.0
    assert tuning_columns(tried, None)["tuning_seconds"] is None, "an empty cell of runs.csv"
    assert spent_seconds([{"ttt_seconds": 1.0}, {"status": "failed"}, {"ttt_seconds": 2.0}]) == 3.0
    assert spent_seconds([{"ttt_seconds": 1.0}, {"ttt_seconds": 8.0, "disturbed": "others"}]) is None


def test_what_is_not_tuned():
    run = replace(BASE, lr=1e-3)
    others = [replace(run, seed=5), replace(run, kind="control"), replace(run, refusal={"status": "refused"})]
    assert tunable([run, *others]) == [run]


def sweep(run_matrix, out, *words):
    done = run_matrix("--task", TASK, "--strategies", "freeze,nf4", "--out", out, *words)
    assert done.returncode == 0, done.stderr
    with (out / "runs.csv").open() as file:
        return done.stdout, list(csv.DictReader(file))


@pytest.mark.slow
def test_what_would_be_tried_is_shown_and_nothing_written(run_matrix, tmp_path):
    words = ("--task", TASK, "--strategies", "lora,nf4", "--seeds", "0,1", "--tune", "3", "--dry-run")
    done = run_matrix(*words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line[:1].isalnum()]
    rates = [(cells[1], cells[4]) for cells in lines if cells[1] in {"full", "lora"} and "run" in cells[-1:]]
    assert rates == [
        ("full", "3.16e-05"), ("full", "0.0001"), ("full", "0.000316"),
        ("lora", "0.000316"), ("lora", "0.001"), ("lora", "0.00316"),
    ]  # fmt: skip
    assert sum("refused" in line for line in done.stdout.splitlines()) == 2, "nf4 alone, with both seeds"
    assert "Then 2 runs at the rates that did best on the tune set" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_without_a_tune_set_nothing_can_be_chosen(run_matrix, tmp_path):
    task = "tests.bench.faulty_task:FaultyTask(fault='untuned')"
    done = run_matrix("--task", task, "--tune", "2", "--out", tmp_path / "out")
    assert (done.returncode, "no tune set to choose by" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_tuned_sweep(run_matrix, tmp_path):
    out = tmp_path / "out"
    printed, rows = sweep(run_matrix, out, "--seeds", "0,1", "--tune", "2")
    compared = [row for row in rows if row["kind"] != "tuning"]
    assert [row["kind"] for row in rows].count("tuning") == 2, "of two trials of full and of freeze one is left"
    assert [(row["strategy"], row["seed"]) for row in compared if row["status"] == "ok"] == [
        ("full", "0"), ("full", "1"), ("freeze", "0"), ("freeze", "1"),
    ]  # fmt: skip
    assert all("best of 2 rates" in row["setting"] for row in rows)
    for name, part in (("full", "lr"), ("freeze", "head_lr")):
        runs = [row for row in compared if row["strategy"] == name]
        assert len({row[part] for row in runs}) == 1, "other seeds have the first one's rate"
        tried = parse_trials(runs[0]["tuned_rates"])
        best = max(score for _, score in tried)
        assert dict(tried)[float(runs[0][part])] == best == pytest.approx(float(runs[0]["tuning_best"]), abs=1e-4)
        assert {row["tuned_rates"] for row in runs} == {runs[0]["tuned_rates"]}
        trained = [float(row["ttt_seconds"]) for row in rows if row["strategy"] == name and row["seed"] == "0"]
        assert float(runs[0]["tuning_seconds"]) == pytest.approx(sum(trained), rel=1e-4)
    refused = [row for row in rows if row["strategy"] == "nf4"]
    assert {(row["status"], row["tuned_rates"]) for row in refused} == {("refused", "")}
    assert "### Rates" in (out / "summary.md").read_text()
    assert "freeze: head_lr 0." in printed

    made = {path: path.stat().st_mtime_ns for path in (out / "runs").glob("*/log.txt")}
    again, same = sweep(run_matrix, out, "--seeds", "0,1", "--tune", "2")
    assert "4 of 4 runs are finished already" in again
    assert [row for row in same if row["status"] == "ok"] == [row for row in rows if row["status"] == "ok"]

    _, more = sweep(run_matrix, out, "--seeds", "0,1", "--tune", "3")
    assert {path: path.stat().st_mtime_ns for path in made} == made, "nothing is run twice"
    assert all("best of 3 rates" in row["setting"] for row in more if row["kind"] != "run" or row["tuned_rates"])
    assert [row["kind"] for row in more].count("tuning") == 4

    _, plain = sweep(run_matrix, out, "--seeds", "0")
    default = [row for row in plain if "best of" not in row["setting"]]
    assert sorted(row["strategy"] for row in default) == ["freeze", "full", "nf4"]
    assert not any(row["tuned_rates"] for row in default)
    records = [read_json(path) for path in (out / "runs").glob("*/record.json")]
    for record in records:
        assert (record["spec"]["kind"], record["spec"]["setting"]) == (record["row"]["kind"], record["row"]["setting"])
