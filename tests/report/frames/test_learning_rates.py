"""Chosen rates in the summary: trials are no recipes, and a best rate at the grid's end is said to be there."""

import pytest

from report.errors import ReportError
from report.frames.compare import compare
from report.frames.learning_rates import learning_rate_lines
from report.frames.results import load


def tuned(row, name, chosen, **changes):
    tried = "0.0001=0.5000 0.000316=0.6000 0.001=failed"
    return row(name, lr=chosen, tuned_rates=tried, tuning_seconds=90, tuning_best=0.6, tuning_spread=0.1, **changes)


def test_trials_stand_in_the_table_of_rates_alone(sweep, row):
    trial = row("lora", kind="tuning", run_id="0123456789ab", accuracy=0.99, vqa_accuracy=0.99, lr=1e-4)
    comparison = compare(load(sweep([tuned(row, "full", 3.16e-4), tuned(row, "lora", 3.16e-4), trial])))[0]
    assert list(comparison.entries["label"]) == ["full", "lora"]
    assert comparison.entries["accuracy"].max() < 0.9
    lines = learning_rate_lines(comparison)
    assert "| `lora` | 0.0001: 50.0 %, 0.000316: 60.0 %, 0.001: – | 0.000316 | 10.0 | 90.0 s |" in lines
    assert not any("At an end" in line for line in lines)


def test_a_rate_at_the_end_of_the_grid_is_named(sweep, row):
    rows = [tuned(row, "full", 3.16e-4), tuned(row, "lora", 1e-4), tuned(row, "lora", 1e-4, seed=1)]
    lines = learning_rate_lines(compare(load(sweep(rows)))[0])
    assert any(line.endswith("find a better one: `lora`.") for line in lines)
    assert sum(line.startswith("| `lora`") for line in lines) == 1, "once for all seeds"


def test_a_head_alone_has_its_rate(sweep, row):
    rows = [tuned(row, "full", 3.16e-4), tuned(row, "freeze", None, head_lr=3.16e-4)]
    lines = learning_rate_lines(compare(load(sweep(rows)))[0])
    assert any(line.startswith("| `freeze`") and "| 0.000316 |" in line for line in lines)


def test_where_every_trial_failed_there_is_a_dash(sweep, row):
    failed = row("lora", tuned_rates="0.001=failed 0.00316=failed", tuning_seconds=9, lr=1e-3)
    lines = learning_rate_lines(compare(load(sweep([tuned(row, "full", 3.16e-4), failed])))[0])
    assert "| `lora` | 0.001: –, 0.00316: – | 0.001 | – | 9.00 s |" in lines


def test_a_sweep_that_was_stopped_among_its_trials_is_said_to_be(sweep, row):
    with pytest.raises(ReportError, match="trials of rates only"):
        compare(load(sweep([row("lora", kind="tuning")])))


def test_without_trials_there_is_no_table(sweep, row):
    assert learning_rate_lines(compare(load(sweep([row("full"), row("lora")])))[0]) == []
