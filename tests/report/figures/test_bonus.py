"""Figures that compare optimisations: what they find in a sweep, and that their numbers are the CSVs'."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from report.figures.catalogue import ACROSS_SETTINGS, FIGURES
from report.figures.scaling import scaling_ratios
from report.figures.seeds import confidence_interval
from report.frames.ablations import AblationStep, cumulative_ablation, leave_one_out
from report.frames.compare import compare
from report.frames.results import load
from tests.report.figures.test_figures import texts


def first(folder):
    return compare(load(folder))[0]


def recipe(row, plan, score, seconds, mib, **changes):
    kind = "baseline" if plan == "full" else "run"
    peak = mib * 2**20
    return row("lora", run_id=f"{plan}{changes}", strategy=plan, plan=plan, kind=kind, vqa_accuracy=score) | {
        "ttt_seconds": seconds, "peak_allocated_bytes": peak, "predicted_peak_bytes": 1.02 * peak, **changes,
    }  # fmt: skip


@pytest.fixture
def steps(row):
    """Two ways up to a+b+c; a first in the table. The whole has been run without a and without c."""
    return [
        recipe(row, "full", 0.80, 100, 40),
        recipe(row, "a", 0.81, 50, 30),
        recipe(row, "c", 0.70, 100, 40),
        recipe(row, "a+b", 0.79, 40, 30),
        recipe(row, "b+c", 0.75, 70, 20),
        recipe(row, "a+b+c", 0.78, 80, 15),
        recipe(row, "a+b+c+d+e", 0.9, 1, 1),
    ]


def test_the_ladder_is_the_longest_way_by_one_technique_at_a_time(sweep, steps):
    comparison = first(sweep(steps))
    assert cumulative_ablation(comparison) == [
        AblationStep("full", ""),
        AblationStep("a", "a"),
        AblationStep("a+b", "b"),
        AblationStep("a+b+c", "c"),
    ]
    said = texts(FIGURES["ladder"](comparison))
    assert "+ b" in said
    assert "-1.0 (-2.0)" in said, "against full, and against the row above"
    assert "0.40× (0.80×)" in said
    assert "0.38× (0.50×)" in said
    assert "Against full" in said


def test_a_recipe_without_each_of_its_techniques(sweep, steps):
    comparison = first(sweep(steps))
    assert leave_one_out(comparison) == ("a+b+c", [AblationStep("b+c", "a"), AblationStep("a+b", "c")])
    said = texts(FIGURES["leave_one_out"](comparison))
    assert "without c" in said
    assert "+1.0" in said
    assert "0.50×" in said
    assert "2.00×" in said
    assert "Against a+b+c" in said


def test_failed_runs_are_on_no_ladder(sweep, steps, failed):
    rows = [row for row in steps if row["plan"] != "a"] + [failed("a", "oom", "too large", plan="a")]
    assert [step.label for step in cumulative_ablation(first(sweep(rows)))] == ["full", "c", "b+c", "a+b+c"]
    assert cumulative_ablation(first(sweep(steps[1:]))) == [], "nothing to start from"


def test_options_make_another_technique(sweep, row):
    rows = [recipe(row, plan, 0.8, 1, 1) for plan in ("full", "a(x='p+q')", "a(x='p+q')+b", "a+b")]
    assert [step.member for step in cumulative_ablation(first(sweep(rows)))] == ["", "a(x='p+q')", "b"]


def test_pairs_name_what_did_not_run(sweep, steps, failed):
    said = texts(FIGURES["pairs"](first(sweep([*steps, failed("a+c", "refused", "they bite", plan="a+c")]))))
    assert "refused" in said
    assert "0.50" in said, "a alone"
    assert "0.40" in said, "a+b"


def test_savings_need_two_settings_with_baselines(sweep, steps):
    larger = [row | {"batch_size": 8, "run_id": row["run_id"] + "8"} for row in steps[:2]]
    larger[1]["peak_allocated_bytes"] *= 0.1
    comparisons = compare(load(sweep([*steps, *larger])))
    table = scaling_ratios(comparisons)
    assert set(table["label"]) == {"a"}
    assert sorted(table["memory_ratio"]) == pytest.approx([0.075, 0.75])
    assert "batch 8" in texts(ACROSS_SETTINGS["savings"](comparisons))
    assert "Nothing to draw" in texts(ACROSS_SETTINGS["savings"](comparisons[:1]))


def test_cells_carry_the_mean_of_the_seeds(sweep, row):
    rows = [row(name, seed=seed) for name in ("full", "lora") for seed in (0, 1)]
    mean = sum(r["vqa_accuracy"] for r in rows if r["strategy"] == "lora") / 2
    said = texts(FIGURES["answer_types"](first(sweep(rows))))
    assert f"{100 * mean * 1.05:.1f}" in said, "yes/no"
    assert "what color" not in said
    said = texts(FIGURES["question_types"](first(sweep(rows))))
    assert f"{100 * mean * 0.95:.1f}" in said, "what color"
    assert "number" not in said


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_interval_is_students(values):
    low, high = confidence_interval(values)
    mean, deviation = sum(values) / len(values), (high - low) / 2
    wanted = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    assert (low + high) / 2 == pytest.approx(mean)
    assert deviation == pytest.approx(wanted, abs=1e-12)


def test_every_seed_is_a_dot(sweep, row):
    figure = FIGURES["seeds"](first(sweep([row("full", seed=seed) for seed in (0, 1, 2)])))
    dots = next(line for line in figure.subfigs[0].axes[0].get_lines() if line.get_marker() == "o")
    assert list(dots.get_xdata()) == pytest.approx([85.2, 85.6, 86.0])


def test_errors_of_the_prediction_are_told(sweep, steps):
    said = texts(FIGURES["predicted_memory"](first(sweep(steps))))
    assert "+2.0 %" in said
    assert "Median size of the error 2 %, largest 2 %." in said


def test_a_missed_target_is_said_and_has_no_bar(sweep, row):
    rows = [row("full"), row("lora", time_to_target_seconds=float("inf"))]
    assert "none (target not reached)" in texts(FIGURES["time_to_target"](first(sweep(rows))))
