"""What a step is made of, against steps whose parts are known; and what the marks of sections cost and add up to."""

import itertools
import subprocess
import sys
import time
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.records.events import EventReader, EventWriter, aggregate_events
from bench.worker.profiling import PARTS, profile_step, stopwatch, union_length
from bench.worker.sections import Clock, children_bytes, process_age
from strategies import compose

SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted).map(tuple), max_size=12)


@given(SPANS)
def test_the_union_counts_every_moment_once(spans):
    assert union_length(spans) == len({moment for start, end in spans for moment in range(start, end)})


class Slow(torch.autograd.Function):
    """Takes its time both ways."""

    @staticmethod
    def forward(ctx, x):
        time.sleep(0.02)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(0.05)
        return grad


def slow_batches():
    while True:
        time.sleep(0.01)
        yield {"x": torch.ones(4, 8)}


def parts_of(text, model=None):
    tuned = compose(text).apply(model or nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), total_steps=20)
    step = tuned.optimizer.step

    def slow_step(*arguments, **options):
        time.sleep(0.03)
        return step(*arguments, **options)

    tuned.optimizer.step = slow_step
    found = profile_step(
        tuned, lambda m, batch: Slow.apply(m(batch["x"])).square().mean(), slow_batches(), lambda: None
    )
    return tuned, {name.removesuffix("_step_seconds"): seconds for name, seconds in found.items()}


def test_parts_of_a_step_are_what_they_are_known_to_be():
    tuned, parts = parts_of("full")
    known = {"forward": 0.02, "backward": 0.05, "optimizer": 0.03, "data": 0.01}
    assert parts == {name: pytest.approx(seconds, abs=0.009) for name, seconds in known.items()}
    assert not set(vars(tuned.engine)) & set(itertools.chain(*PARTS.values())), "the engine is as it was"
    assert tuned.state.step == 6


@pytest.mark.slow
def test_an_optimizer_inside_the_backward_pass_counts_there():
    _, parts = parts_of("optimizer_in_backward")
    assert parts["optimizer"] < 0.005
    assert parts["backward"] > 0.05 + 4 * 0.03 - 0.01, "four tensors, one step each"


@pytest.mark.slow
def test_each_small_batch_of_an_update_counts():
    _, parts = parts_of("accumulate(n=2)")
    assert parts["backward"] == pytest.approx(2 * 0.05, abs=0.015)


def test_a_slow_step_is_looked_at_once(monkeypatch):
    monkeypatch.setattr("bench.worker.profiling.MAX_SECONDS", 0.0)
    tuned, _ = parts_of("full")
    assert tuned.state.step == 2, "one to warm up"


def test_the_engine_is_free_again_after_an_error():
    tuned = compose("full").apply(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), total_steps=2)
    with pytest.raises(ZeroDivisionError), stopwatch(tuned.engine, lambda: None):
        raise ZeroDivisionError
    assert not set(vars(tuned.engine)) & {"backward", "update"}


def test_sections_and_their_marks_add_up_to_the_time_that_passed(tmp_path):
    uncovered = []
    for attempt in range(5):  # what is left out is left out every time; other work on the machine is not
        with closing(EventWriter(tmp_path / f"events{attempt}")) as emit:
            clock = Clock(emit, torch.device("cpu"))
            begun = time.perf_counter()
            for name in ("train", "eval") * 10:
                with clock.section(name):
                    time.sleep(0.01)
            passed = time.perf_counter() - begun
        sections = aggregate_events(EventReader(tmp_path / f"events{attempt}")()).sections
        assert set(sections) == {"train", "eval", "measuring"}
        assert sections["train"]["seconds"] == pytest.approx(clock.seconds["train"])
        uncovered.append(1 - sum(section["seconds"] for section in sections.values()) / passed)
    assert 0 <= min(uncovered) < 0.01


def test_the_age_of_this_process_grows_with_the_clock():
    first, begun = process_age(), time.perf_counter()
    time.sleep(0.05)
    assert process_age() - first == pytest.approx(time.perf_counter() - begun, abs=0.005)


def test_memory_of_children_counts():
    alone = children_bytes()
    text = "x = bytearray(50 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert children_bytes() - alone > 50 << 20
        child.communicate(b"\n")
