"""The mark of a disturbed run: on figures that were recorded beside real neighbours, and what holds for any figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.disturbance import (
    MIN_OTHER_CPUS,
    MIN_SECONDS,
    MIN_WAIT,
    RUN_COLUMNS,
    SECTION_COLUMNS,
    SUMMED,
    disturbance_columns,
)
from bench.records.events import aggregate_events


def sections(waited, others, seconds=4.0, used=1.5, cpus=2):
    """One section of training in which threads waited, and others had the CPUs, for these shares."""
    return {
        "train": {
            "seconds": seconds, "cpu_seconds": used * seconds, "involuntary_switches": 100,
            "cpu_wait_seconds": used * seconds * waited / (1 - waited), "cpu_pressure_seconds": 0.0,
            "other_cpu_seconds": cpus * seconds * others, "available_cpu_seconds": cpus * seconds,
        }
    }  # fmt: skip


# Beside whom, recipe, OpenMP threads, CPUs used, waited, others; docs/decisions/0024 says how it was measured.
QUIET = [
    ("full", 2, 1.83, 0.025, 0.016), ("lora", 2, 1.87, 0.006, 0.003), ("qlora8", 2, 1.84, 0.011, 0.012),
    ("compile", 2, 1.23, 0.005, 0.008), ("full", 1, 1.00, 0.000, 0.010), ("lora", 1, 0.98, 0.015, 0.508),
]  # fmt: skip
DISTURBED = [
    ("full", 2, 1.00, 0.473, 0.501), ("full", 2, 1.39, 0.243, 0.274), ("full", 2, 0.98, 0.483, 0.510),
    ("lora", 2, 0.99, 0.471, 0.501), ("lora", 2, 1.40, 0.248, 0.268), ("lora", 2, 0.97, 0.480, 0.513),
    ("qlora8", 2, 0.99, 0.471, 0.503), ("qlora8", 2, 1.55, 0.130, 0.171), ("qlora8", 2, 0.97, 0.478, 0.511),
    ("compile", 2, 0.98, 0.301, 0.497), ("full", 1, 0.79, 0.207, 0.602), ("full", 1, 0.90, 0.105, 0.329),
    ("lora", 1, 0.94, 0.053, 0.342),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "disturbed"), [*((row, False) for row in QUIET), *((row, True) for row in DISTURBED)], ids=str
)
def test_what_was_recorded_with_and_without_neighbours(row, disturbed):
    """The last quiet one had its one CPU for itself, and took no longer, though others kept the other one busy."""
    *_, used, waited, others = row
    found = disturbance_columns(sections(waited, others, used=used), {})
    assert ("disturbed" in found) == disturbed


def test_the_reason_is_plain_words():
    found = disturbance_columns(sections(0.47, 0.5), {})
    assert found["disturbed"] == "others used 1.0 of 2 CPUs, its threads waited 47 % of their time for one"
    assert found["cpu_wait_share"] == pytest.approx(0.47)
    assert found["other_cpu_share"] == 0.5


def test_waiting_for_its_own_threads_is_no_disturbance():
    assert "disturbed" not in disturbance_columns(sections(0.6, 0.02), {})


def test_of_a_moment_nothing_is_said():
    found = disturbance_columns(sections(0.5, 0.5, seconds=0.9 * MIN_SECONDS), {})
    assert "disturbed" not in found
    assert found["other_cpu_share"] == 0.5, "what was measured is there all the same"


def test_only_training_counts():
    parts = sections(0.0, 0.0)
    assert "disturbed" not in disturbance_columns(parts | {"eval": sections(0.5, 0.5)["train"]}, {})
    assert "disturbed" in disturbance_columns(parts | {"warmup": sections(0.5, 0.5)["train"]}, {})


def test_what_was_not_measured_is_missing_and_marks_nothing():
    assert disturbance_columns({}, {}) == {}
    assert disturbance_columns({"train": {"seconds": 5.0}}, {}) == {}
    part = {"warmup": {"seconds": 1.0}, "train": sections(0.5, 0.5)["train"]}
    assert disturbance_columns(part, {}) == {}, "a part must not pass for the whole"


@pytest.mark.parametrize(
    ("environment", "part", "words"),
    [
        ({"other_gpu_share": 0.4}, {}, "others used 40 % of the GPU"),
        ({"other_gpu_share": 0.0}, {"other_gpu_share": 0.25}, "others used 25 % of the GPU"),
        ({}, {"gpu_slowed_seconds": 1.0}, "heat slowed the GPU down for 25 % of the time"),
        ({"throttled": ["power cap"]}, {}, ""),
        ({"after_training": {"throttled": ["power cap", "hardware thermal slowdown"]}}, {},
         "the GPU was held down: hardware thermal slowdown"),
        ({"other_gpu_share": 0.01}, {"other_gpu_share": 0.0, "gpu_slowed_seconds": 0.0}, ""),
    ],
)  # fmt: skip
def test_a_gpu_has_reasons_of_its_own(environment, part, words):
    found = disturbance_columns({"train": {"seconds": 4.0, **part}}, environment)
    assert found.get("disturbed", "") == words


SHARE = st.floats(0, 0.9)
FIGURES = st.fixed_dictionaries({name: st.floats(0, 1e3) for name in ("seconds", *sorted(SUMMED))})


@given(st.lists(st.tuples(st.sampled_from(["warmup", "train", "eval"]), FIGURES), min_size=1, max_size=8))
def test_folding_adds_up_and_shares_are_shares(parts):
    events = [{"event": "section_end", "name": name, **figures} for name, figures in parts]
    folded = aggregate_events(events).sections
    for name in folded:
        for figure in SUMMED:
            assert folded[name][figure] == pytest.approx(sum(found[figure] for own, found in parts if own == name))
    found = disturbance_columns(folded, {})
    assert set(found) <= set(RUN_COLUMNS)
    assert all(0 <= found[name] <= 1 for name in found if name.endswith("_share"))


@given(SHARE, SHARE, SHARE)
def test_more_of_others_never_takes_a_mark_away(waited, others, more):
    marks = ["disturbed" in disturbance_columns(sections(waited, share), {}) for share in (others, max(others, more))]
    assert marks[0] <= marks[1]


@given(SHARE)
def test_alone_no_run_is_marked(waited):
    assert "disturbed" not in disturbance_columns(sections(waited, 0.0), {})


def test_limits_and_columns_are_what_the_page_says(root):
    text = " ".join((root / "docs" / "decisions" / "0024-disturbed-runs.md").read_text().split())
    assert f"{MIN_OTHER_CPUS:g} CPUs" in text
    assert f"{100 * MIN_WAIT:.0f} %" in text
    assert set(SECTION_COLUMNS) > SUMMED
