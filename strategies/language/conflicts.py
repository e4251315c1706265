"""Pairs that do not work together, each seen to fail, each with its reason and where PEFT's code for it comes from.

Keep this short: what follows from slots and capabilities does not belong here. Every row has a test that expects
the failure, strictly: when an upstream release fixes it, that test fails and the row goes.
"""

from __future__ import annotations

from typing import NamedTuple


class Conflict(NamedTuple):
    """A strategy and others that fail with it on the same scope, why, where that is discussed, on which device.

    `device` is a device type, or `None` for all.
    """

    one: str
    others: tuple[str, ...]
    reason: str
    link: str
    device: str | None = None


PACKED = "the shape of its change comes from the stored weight, which is packed in 4 bits; take lora"
CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        "dora",
        ("int8",),
        "on CPU PEFT loses the scales of an 8-bit weight; take nf4+dora or lora+int8",
        "https://github.com/huggingface/peft/pull/2820",
        "cpu",
    ),
    Conflict(
        "hra",
        ("int8", "nf4", "fp4"),
        "it reflects the stored codes in place of the weight; take lora, or oft for an orthogonal method",
        "https://github.com/huggingface/peft/pull/1864",
    ),
    Conflict(
        "adalora",
        ("optimizer_in_backward",),
        "it weighs its ranks by gradients, which are gone after the update; take lora",
        "https://github.com/huggingface/peft/issues/1721",
    ),
    Conflict(
        "adalora",
        ("schedule_free",),
        "it weighs its ranks by gradients, which schedulefree overwrites with its own steps; take lora",
        "https://github.com/facebookresearch/schedule_free/blob/main/schedulefree/adamw_schedulefree.py",
    ),
    Conflict("loha", ("nf4", "fp4"), PACKED, "https://huggingface.co/docs/peft/developer_guides/quantization"),
    Conflict("lokr", ("nf4", "fp4"), PACKED, "https://huggingface.co/docs/peft/developer_guides/quantization"),
)
