"""Settings, seeds, ratios and the Pareto front."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.frames.compare import compare, pareto_front
from report.frames.results import load

numbers = st.one_of(st.just(float("nan")), st.integers(0, 8).map(float))


def beats(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other


@given(st.lists(st.tuples(numbers, numbers), max_size=25))
def test_front_keeps_exactly_what_nothing_beats(points):
    front = pareto_front([x for x, _ in points], [y for _, y in points])
    known = [point for point in points if not any(map(math.isnan, point))]
    for point, kept in zip(points, front, strict=True):
        beaten = point not in known or any(beats(other, point) for other in known)
        assert kept != beaten


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=25), st.randoms())
def test_front_does_not_depend_on_order(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    front = pareto_front([x for x, _ in points], [y for _, y in points])
    again = pareto_front([points[i][0] for i in order], [points[i][1] for i in order])
    assert [front[i] for i in order] == again


def one(folder):
    (comparison,) = compare(load(folder))
    return comparison


def entry(comparison, label):
    return comparison.entries.set_index("label").loc[label]


def test_order_is_baseline_then_as_run_then_controls(sweep, row):
    rows = [row(name) for name in ("question-only", "qlora", "full", "freeze")]
    assert one(sweep(rows)).entries["label"].tolist() == ["full", "qlora", "freeze", "question-only"]


def test_ratios_are_taken_per_seed_then_averaged(sweep, row):
    rows = [row(name, seed=seed) for seed in (0, 1) for name in ("full", "lora")]
    for position, (base, seconds) in enumerate([(10.0, 20.0), (100.0, 100.0)]):
        rows[2 * position]["ttt_seconds"], rows[2 * position + 1]["ttt_seconds"] = base, seconds
    lora = entry(one(sweep(rows)), "lora")
    assert lora["ttt_ratio"] == pytest.approx(1.5)
    assert (lora["ttt_ratio_low"], lora["ttt_ratio_high"], lora["num_ok"]) == (1.0, 2.0, 2)


def test_no_ratio_without_a_finished_baseline_of_the_seed(sweep, row, failed):
    comparison = one(sweep([failed("full", "oom", "too big"), row("lora"), row("freeze", seed=3)]))
    assert comparison.baseline is None
    assert comparison.entries[["ttt_ratio", "memory_ratio"]].isna().all(axis=None)
    assert entry(comparison, "full")["status"] == "oom"


def test_controls_get_no_ratio(sweep):
    assert math.isnan(entry(one(sweep()), "question-only")["ttt_ratio"])


def test_figures_of_unfinished_runs_do_not_enter_means(sweep, row):
    rows = [row("full"), row("lora"), row("lora", seed=1, status="timeout", ttt_seconds=1e6, accuracy=0.0)]
    lora = entry(one(sweep(rows)), "lora")
    assert lora["status"] == "1 of 2 ok, timeout"
    assert (lora["ttt_seconds"], lora["accuracy"]) == (28.0, 0.823)


def test_alias_and_expansion_are_one_entry(sweep, row):
    comparison = one(sweep([row("qlora"), row("qlora", seed=1, strategy="nf4+lora")]))
    assert comparison.entries["label"].tolist() == ["qlora"]
    assert comparison.entries["num_ok"].tolist() == [2]


def test_same_plan_and_seed_with_other_rate_stays_apart(sweep, row):
    rows = [row("full"), row("lora", lr=1e-3), row("lora", run_id="other", lr=1e-4)]
    assert one(sweep(rows)).entries["label"].tolist() == ["full", "lora lr=0.001", "lora lr=0.0001"]


def test_different_settings_are_not_compared(sweep, row, failed):
    rows = [row("full"), row("lora"), row("lora", run_id="x", batch_size=8), failed("dora", "refused", "no", device="")]
    big, small = compare(load(sweep(rows)))
    assert big.setting["batch_size"] == "64"
    assert big.runs["strategy"].tolist() == ["full", "lora", "dora"]
    assert small.runs["strategy"].tolist() == ["lora"]
    assert small.baseline is None


def test_section_seconds_fill_empty_cells(sweep, row):
    folder = sweep([row("full")], drop=["warmup_seconds"])
    assert entry(one(folder), "full")["warmup_seconds"] > 0


def test_five_hundred_runs(sweep, row):
    rows = [row("lora", run_id=f"r{i}", strategy=f"lora(r={i})", plan=f"lora(r={i})") for i in range(1, 500)]
    assert len(one(sweep([row("full"), *rows], history=False)).entries) == 500
