"""Ids of runs outlive new options: what version 0.1.0 hashed is what is hashed today, word by word and run by run."""

import dataclasses
import json
from pathlib import Path

import pytest

from bench.records.json_files import digest
from bench.records.spec import RunSpec
from strategies import Recipe, catalogue, compose
from strategies.language.parse import build
from strategies.options import ADDED

ROOT = Path(__file__).resolve().parents[3]
# Plan → digest of its canonical form, written with the code of 27 November 2026.
KNOWN = json.loads((Path(__file__).parent / "ids_of_0_1_0.json").read_text("utf-8"))


def test_every_word_has_the_id_it_had():
    words = {text for text in KNOWN if "(" not in text and "+" not in text}
    assert len(words & set(catalogue())) > 55
    different = {text for text, known in KNOWN.items() if digest(compose(text).canonical()) != known}
    assert not different


def test_committed_runs_have_the_ids_they_were_written_under():
    known, checked = catalogue(), 0
    for path in ROOT.glob("results/*/runs/*/record.json"):
        spec = json.loads(path.read_text("utf-8"))["spec"]
        members = [build(known[member.pop("name")], member) for member in spec["members"]]
        again = RunSpec.from_json({**spec, "members": Recipe.of(members).canonical()})
        assert again.run_id == path.parent.name, spec["plan"]
        checked += 1
    assert checked > 580


@pytest.mark.parametrize(
    ("text", "label", "alpha"),
    [
        ("lora", "lora", 16), ("lora(r=64)", "lora(r=64)", 128), ("lora(r=64, alpha=128)", "lora(r=64)", 128),
        ("lora(r=64, alpha=16)", "lora(r=64, alpha=16)", 16), ("lora(alpha=16)", "lora", 16),
        ("dora(r=4)", "dora(r=4)", 8), ("loraplus(r=4)", "loraplus(r=4)", 8), ("lorafa", "lorafa", 32),
        ("pissa(r=4)", "pissa(r=4)", 4), ("olora(r=16)", "olora(r=16)", 16), ("rslora(r=4)", "rslora(r=4)", 16),
        ("adalora(target_r=4)", "adalora(target_r=4)", 8), ("loha(r=4)", "loha(r=4)", 4),
        ("lokr(r=16)", "lokr(r=16)", 16), ("randlora(r=4)", "randlora(r=4)", 80),
    ],
)  # fmt: skip
def test_alpha_follows_the_rank_unless_it_is_given(text, label, alpha):
    plan = compose(text)
    assert (str(plan), plan.canonical()[0]["alpha"]) == (label, alpha)
    assert compose(label) == plan
    assert Recipe.of([build(catalogue()[plan.members[0].name], {"alpha": alpha, **_others(plan)})]) == plan


def _others(plan):
    return {key: value for key, value in plan.canonical()[0].items() if key not in {"name", "alpha"}}


def test_an_option_added_later_is_hashed_only_where_it_was_given():
    lora = catalogue()["lora"]
    later = {field.name for field in dataclasses.fields(lora) if ADDED in field.metadata}
    assert {"rank_pattern", "modules_to_save", "variant", "init"} <= later
    assert not later & set(compose("lora").canonical()[0])
    given = compose("lora(modules_to_save=['embed'], layers_to_transform=[3, 1], rank_pattern={'b': 2, 'a': 4})")
    assert set(given.canonical()[0]) & later == {"modules_to_save", "layers_to_transform", "rank_pattern"}
    assert compose(str(given)) == given
    saved = [{key: value for key, value in given.canonical()[0].items() if key != "name"}]
    assert Recipe.of([lora(**json.loads(json.dumps(saved[0])))]) == given
