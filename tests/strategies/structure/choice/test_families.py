"""What is chosen in the families of transformers is what a reader of the architecture would name, and PEFT's all."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from strategies.structure.blocks import repeated_blocks
from strategies.structure.bottlenecks import pairs
from strategies.structure.choice.choosing import Tower, blocks_of, known_roles
from strategies.structure.choice.requests import Request
from strategies.structure.roles import ALL_LINEAR, QUERY_AND_VALUE, linear_layers

sys.path.insert(0, str(Path(__file__).parent))
from families import FAMILIES

NOTHING = Request("lora", None, None, None, None)
MODELS = {}


def build(kind):
    """Make a model without weights, once."""
    if kind not in MODELS:
        with torch.device("meta"):
            MODELS[kind] = AutoModel.from_config(AutoConfig.for_model(kind, **FAMILIES[kind].config))
    return MODELS[kind]


def chosen(model, default):
    tower = Tower(model, "body", ("",), convolutions=False)
    return tower.choose(NOTHING, default), tower.notes


def ends(name, endings):
    return any(name == ending or name.endswith(f".{ending}") for ending in endings.split())


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_layers_that_a_reader_would_name(kind):
    family, model = FAMILIES[kind], build(kind)
    names, notes = chosen(model, QUERY_AND_VALUE)
    assert names == [name for name in linear_layers(model, ("",)) if ends(name, family.adapted)]
    assert not set(names) & {name for name, why in notes.items() if why.startswith("not adapted")}


@pytest.mark.parametrize("kind", FAMILIES)
def test_all_linear_layers_of_the_blocks_are_those_of_peft(kind):
    import peft
    from peft.tuners.tuners_utils import _maybe_include_all_linear_layers

    family, model = FAMILIES[kind], build(kind)
    theirs = _maybe_include_all_linear_layers(peft.LoraConfig(target_modules="all-linear"), model).target_modules
    in_blocks = {name for name in theirs if any(name.startswith(f"{block}.") for block in blocks_of(model, ("",)))}
    left = {name for name in in_blocks if ends(name, family.left)}
    names, notes = chosen(model, ALL_LINEAR)
    assert set(names) == in_blocks - left
    assert left <= notes.keys()
    assert theirs - in_blocks <= notes.keys()


@pytest.mark.parametrize("kind", FAMILIES)
def test_feed_forward_parts_are_pairs(kind):
    family, model = FAMILIES[kind], build(kind)
    names, _ = chosen(model, ("up", "down"))
    found, single = pairs(names, blocks_of(model, ("",)), known_roles(model, ("",)))
    assert not (found and single)
    expected = [part.split(">") for part in family.pairs.split()]
    assert all(any(ends(up, first) and ends(down, last) for first, last in expected) for up, down in found)
    last = [name for name in linear_layers(model, ("",)) if any(ends(name, ending) for _, ending in expected)]
    assert len(found) == len([name for name in last if "down" in known_roles(model, ("",))[name]])
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("kind", FAMILIES)
def test_as_many_blocks_as_the_architecture_has(kind):
    blocks = repeated_blocks(build(kind), ("",))
    assert len(blocks) == FAMILIES[kind].blocks
    assert not any(isinstance(block, torch.nn.ModuleList) for block in blocks.values())


def test_single_blocks_of_the_stacks_kind_belong_to_them():
    for kind, name in (("canine", "final_char_encoder.layer.0"), ("perceiver", "encoder.cross_attention")):
        names, _ = chosen(build(kind), ALL_LINEAR)
        assert any(layer.startswith(f"{name}.") for layer in names)


def test_a_hybrids_blocks_without_attention_are_named():
    _, notes = chosen(build("jamba"), QUERY_AND_VALUE)
    assert "no layer of its block is known as query or value" in notes["layers.0.mamba.in_proj"]
    assert not any("self_attn" in name or "down_proj" in name for name in notes if "experts" not in name)
