"""Time to target, suspiciously quick recipes, a step's parts, compiling's break-even, shares of the wall clock."""

import dataclasses
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.frames.compare import compare
from report.frames.results import load
from report.frames.steps import PARTS, break_even_lines, members, step_lines
from report.frames.targets import target_lines, too_good
from report.frames.wall_clock import wall_lines
from report.text.findings import findings


def first(folder):
    return compare(load(folder))[0]


def reached(row, name, seed, seconds, steps):
    return row(name, seed=seed, time_to_target_seconds=seconds, steps_to_target=steps)


def test_a_miss_is_infinite_and_counts_in_the_median(sweep, row):
    rows = [
        *(reached(row, "full", seed, 20 + seed, 300) for seed in (0, 1, 2)),
        *(reached(row, "lora", seed, 10, 150) for seed in (0, 1)),
        reached(row, "lora", 2, math.inf, math.inf),
        *(reached(row, "freeze", seed, math.inf, math.inf) for seed in (0, 1)),
    ]
    lines = target_lines(first(sweep(rows)))
    assert "| `full` | 3 of 3 | 21.0 s | 1.00× | 300 |" in lines
    assert "| `lora` | 2 of 3 | 10.0 s | 0.50× | 150 |" in lines
    assert "| `freeze` | 0 of 2 | not reached | – | – |" in lines


def test_no_target_without_a_baseline(sweep, row):
    assert target_lines(first(sweep([row("full", time_to_target_seconds=None), reached(row, "lora", 0, 1, 1)]))) == []


@pytest.mark.parametrize(("steps", "flagged"), [((150, 100), True), ((150, 151), False), ((100, math.inf), False)])
def test_too_good_is_half_of_the_quickest_baseline_with_every_seed(sweep, row, steps, flagged):
    rows = [reached(row, "full", 0, 20, 300), reached(row, "full", 1, 20, 375)]
    rows += [reached(row, "lora", seed, 5, step) for seed, step in enumerate(steps)]
    comparison = first(sweep(rows))
    assert ("lora (150)" in too_good(comparison)) == flagged
    assert any("Too good" in sentence for sentence in findings(comparison)) == flagged


NAMES = st.sampled_from(
    ["lora", "amp", "lora(r=16)", "freeze(scope='a+b')", "lora(roles=['key', 'a)+('])", "x(y=(1, 2))"]
)


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_a_plan_is_split_at_the_pluses_between_members(names):
    assert members("+".join(names)) == tuple(sorted(names))


def compiled(row, per_second, one_off, seed=0):
    return row(
        "lora", run_id=f"fast{seed}", strategy="lora+fast", plan="lora+fast(mode='a+b')", seed=seed,
        compile_seconds=one_off - 1, samples_per_second=per_second, ttt_seconds=100 + one_off, train_seconds=100,
    )  # fmt: skip


def plain(row, name="lora", **changes):
    return row(name, compile_seconds=None, samples_per_second=1000, ttt_seconds=102, train_seconds=100, **changes)


def test_break_even_by_hand(sweep, row):
    """6,000 samples: 6 s an epoch against 3 s, 60 s more at the start: after 20 epochs."""
    lines = break_even_lines(first(sweep([row("full"), plain(row), compiled(row, 2000, 62)])))
    assert "- `lora+fast` against `lora`: after 20.0 epochs" in lines[2]


def test_break_even_never_and_only_against_one_member_less(sweep, row):
    lines = break_even_lines(first(sweep([row("full"), plain(row), compiled(row, 900, 62)])))
    assert "never" in lines[2]
    assert break_even_lines(first(sweep([row("full"), plain(row, "freeze"), compiled(row, 900, 62)]))) == []
    assert break_even_lines(first(sweep([row("full"), plain(row, seed=1), compiled(row, 900, 62)]))) == []


def test_the_baseline_is_the_recipe_with_no_member(sweep, row):
    rows = [plain(row, "full"), compiled(row, 2000, 62) | {"plan": "fast", "strategy": "fast"}]
    assert "- `fast` against `full`: after 20.0 epochs" in break_even_lines(first(sweep(rows)))[2]


def test_parts_of_a_step(sweep, row):
    comparison = first(sweep([row("full"), row("lora"), row("question-only")], drop=PARTS.values()))
    assert step_lines(comparison) == []
    entries = comparison.entries.assign(
        forward_step_seconds=[0.010, 0.011, 0.01], backward_step_seconds=[0.020, math.nan, 0.02]
    )
    lines = step_lines(dataclasses.replace(comparison, entries=entries))
    assert lines[4:] == [
        "| recipe | forward | backward |", "|---|---:|---:|",
        "| `full` | 10.0 (1.00×) | 20.0 (1.00×) |", "| `lora` | 11.0 (1.10×) | – |", "",
    ]  # fmt: skip


def test_shares_of_the_wall_clock(sweep, row):
    """Synthetic runs: load 2.5, eval 4, setup, warm-up and training; one unknown section."""
    comparison = first(sweep([row("full", setup_seconds=0, warmup_seconds=1.5, train_seconds=12)]))
    assert "12.0 s" not in wall_lines([comparison])[2]
    assert "Of 20.0 s that 1 runs took, 67.5 % was training" in wall_lines([comparison])[2]
    assert "eval 20.0 %, load 12.5 %, setup 0.0 %." in wall_lines([comparison])[2]
    more = pd.concat([comparison.sections, comparison.sections.head(1).assign(section="hop", seconds=5.0)])
    runs = comparison.runs.assign(wall_seconds=40.0)
    text = wall_lines([dataclasses.replace(comparison, sections=more, runs=runs)])[2]
    assert "Of 40.0 s" in text
    assert "hop 12.5 %" in text
    assert "outside sections 37.5 %" in text
    assert wall_lines([comparison, comparison]) == wall_lines([comparison]), "a run counts once"
    assert wall_lines([dataclasses.replace(comparison, sections=more.head(0))]) == []
