"""The identity of a run: what changes it, what does not, and that it never drifts by accident."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.records.json_files import digest
from bench.records.spec import RunSpec

BASE = RunSpec(
    members=({"name": "full", "lr": 2e-4, "head_lr": 1e-3},), task="pkg.task:Task", task_options={"size": "tiny"},
    data="0123456789ab", model="ba9876543210", seed=0, batch_size=32, epochs=2.0, max_steps=None, lr=2e-4,
    head_lr=1e-3, device="cpu",
)  # fmt: skip

# Frozen: results of teammates merge by these. A change here makes every published run a new one.
GOLDEN = {
    "base": ({}, "e08a2729fd43"),
    "seed": ({"seed": 1}, "4ef5ea06359b"),
    "plan": ({"members": ({"name": "lora", "r": 8},), "lr": 1e-3}, "a3fde297e8de"),
    "device": ({"device": "cuda"}, "288f4bf18762"),
    "steps": ({"epochs": None, "max_steps": 40}, "f7420945263c"),
}


@pytest.mark.parametrize(("changes", "run_id"), GOLDEN.values(), ids=GOLDEN)
def test_five_ids_are_frozen(changes, run_id):
    assert dataclasses.replace(BASE, **changes).run_id == run_id


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(RunSpec)])
def test_exactly_the_identity_fields_change_the_id(name):
    (field,) = [f for f in dataclasses.fields(RunSpec) if f.name == name]
    current = getattr(BASE, name)
    other = (
        {"x": 1}
        if isinstance(current, dict | tuple) or current is None
        else (f"{current}x" if isinstance(current, str) else current + 1)
    )
    changed = dataclasses.replace(BASE, **{name: other}).run_id != BASE.run_id
    assert changed == field.metadata.get("identity", True)


def test_json_round_trip_keeps_the_id():
    again = RunSpec.from_json(json.loads(json.dumps(BASE.to_json())))
    assert again.run_id == BASE.run_id
    assert again.to_json() == json.loads(json.dumps(BASE.to_json()))


def test_a_foreign_specification_is_refused_by_field():
    value = BASE.to_json()
    del value["seed"]
    with pytest.raises(ValueError, match=r"\['colour', 'seed'\]"):
        RunSpec.from_json(value | {"colour": "red"})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES))
def test_digest_ignores_key_order(value):
    assert digest(value) == digest(dict(reversed(value.items())))
    assert len(digest(value)) == 12
