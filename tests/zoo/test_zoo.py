"""A part of the zoo that covers every check, and the page of all of it held to what was recorded."""

import pytest

from tests.zoo import reference as plain
from tests.zoo.architectures import ROWS
from tests.zoo.page import CASES, PAGE, as_page, failures, kind_of_reason, read_cases, wanted
from tests.zoo.plans import ALL_LINEAR, BF16, LEAN, LINEAR, PLANS, QUERY_VALUE, ROLES, Plan, lora
from tests.zoo.run import Case, run
from tests.zoo.trial import Trial, place

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


@pytest.fixture
def trial(tmp_path):
    """A small model of plain torch, ready to be tried."""
    trial = Trial(ROWS["timm-vit"], tmp_path)
    trial.row.pretrain(trial.base)
    trial.reference = plain.refer(trial.row, trial.base)
    return trial


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


WRONG = (  # a plan, what is said of it that is not so, and the words that have to tell
    ("full", {"trains": "new"}, "should not train and moved"),
    ("freeze", {}, "should train and did not move"),
    ("bitfit", {"trains": "norms"}, "should not train and moved: blocks.0.attn.proj.bias"),
    ("lora", {"trains": LINEAR}, "no adapter on blocks.0.attn.proj"),
    (ALL_LINEAR, {"trains": QUERY_VALUE}, "which nobody asked for"),
    ("lora", {"trains": QUERY_VALUE, "peft": lora(lora_alpha=8)}, "after one update"),
    ("lora", {"trains": QUERY_VALUE, "like": "full"}, "its losses are not those of full"),
    (BF16, {"start": 1e-6}, "before training outputs are off"),
    ("nf4+lora", {"trains": QUERY_VALUE, "merges": 1e-4}, "merging moves the outputs"),
)


def test_the_checks_find_what_is_wrong(trial):
    for text, told, words in WRONG:
        assert any(words in line for line in trial.train(Plan(text=text, kind="weights", **told))), text


def test_what_is_loaded_is_held_to_what_was_saved(trial):
    import torch

    assert not trial.train(PLANS["full"])
    assert not trial.load(PLANS["full"])
    kept = trial.folder / f"{place(PLANS['full'])}.pt"
    torch.save({name: outputs + 0.01 for name, outputs in torch.load(kept).items()}, kept)
    assert "outputs are off" in trial.load(PLANS["full"])[0]


def test_reasons_of_one_kind_are_counted_together():
    one, other = (f"2 of {n} parameters got no gradient: {name}.bias, b.weight" for n, name in ((7, "a"), (41, "x.y")))
    assert kind_of_reason(one) == kind_of_reason(other)
    refused = [Case(name, "full", "refused", one) for name in list(ROWS)[:21]]
    fine = [Case("bert", "lora", "ok")] * 300
    assert not list(failures(refused[1:] + fine))
    assert [line.partition(":")[0] for line in failures(refused + fine)] == ["one reason stops 21 architectures"]
    assert len(list(failures([Case("bert", "lora", "fault", one), *refused, *fine[:100]]))) == 3


def test_roles_are_all():
    assert all(f"'{role}'" in ROLES for role in LINEAR)
