"""A part of the zoo that covers every check, and the page of all of it held to what was recorded."""

import pytest

from tests.zoo.architectures import ROWS
from tests.zoo.page import CASES, PAGE, as_page, failures, read_cases, wanted
from tests.zoo.plans import ALL_LINEAR, LEAN, LINEAR, PLANS, ROLES
from tests.zoo.run import run

ADVICE = "run `make zoo` and look at the difference"
# Architecture → plans: each check meets a model on which what it looks for went wrong once.
PART = {
    "distilbert": ("lora", "freeze"),  # two new layers
    "llama": ("full", "lora", "checkpointing"),  # nothing new, padding and a cache
    "t5": ("nf4+lora", "int8+lora", "houlsby(r=8)"),  # a layer that reads its weight's type
    "clip": ("freeze(last_n=1)", "lora"),  # two towers
    "gpt-neox": ("adalora", ALL_LINEAR),
    "hubert-ctc": ("adaptformer(r=8)", "ia3"),
    "wav2vec2": ("full", "lora"),  # layers that are skipped
    "dinov2": ("full", "bitfit"),  # a parameter that is not used
    "mamba": ("lora",),  # a layer whose weight is read
    "dpt": ("layernorm", "lora"),  # several new parts
    "bert-mlm": ("full", LEAN, "accumulate(n=2)"),  # labels that do not count
    "lstm": ("bitfit",),
    "weight-norm": ("lora",),
    "derived-linear": ("nf4+lora", "dora"),
    "functional": ("full",),
    "experts": ("full", "adalora"),
}


@pytest.fixture(scope="module")
def recorded(root):
    """What `make zoo` wrote: (architecture, plan) → case."""
    return {(case.architecture, case.plan): case for case in read_cases(root / "docs" / CASES)}


def test_the_page_says_what_was_recorded(recorded, root):
    lines = (root / "docs" / PAGE).read_text("utf-8").splitlines()
    fresh = as_page(list(recorded.values())).splitlines()
    assert [line for line in lines if not line.startswith("Versions")] == [
        line for line in fresh if not line.startswith("Versions")
    ], ADVICE


def test_every_architecture_and_plan_is_recorded(recorded):
    assert list(recorded) == [(name, text) for name, texts in wanted().items() for text in texts], ADVICE
    assert len(ROWS) >= 58
    assert sum(row.family == "plain torch" for row in ROWS.values()) >= 8
    assert len(PLANS) >= 30


def test_nothing_recorded_is_wrong(recorded):
    assert not list(failures(list(recorded.values())))
    assert all(len(case.reason) > 20 for case in recorded.values() if case.outcome != "ok")


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("name", PART)
def test_a_part_is_as_recorded(name, recorded):
    """An architecture trained and loaded under a few plans; `make zoo` tries all."""
    found = run({name: PART[name]}, processes=1)
    assert [case.plan for case in found] == list(PART[name])
    different = [case for case in found if case[2:4] != recorded[name, case.plan][2:4]]
    assert not different, ADVICE


def test_roles_are_all():
    assert all(f"'{role}'" in ROLES for role in LINEAR)
