"""The fusions by name, and how one is written: `hadamard`, `cross_attention(layers=1)`.

A fusion is written as a call, read with Python's own parser and never run. Adding one is a row.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final, NamedTuple

from vqa_model.modeling.fusion.co_attention import CoAttentionFusion
from vqa_model.modeling.fusion.layers import ConcatFusion, CrossAttentionFusion, GuidedAttentionFusion, HadamardFusion

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

MAX_LAYERS = 24


class Kind(NamedTuple):
    """A fusion's class, and which of `heads` and `layers` it takes."""

    build: Callable[..., nn.Module]
    options: tuple[str, ...] = ()


FUSIONS: Final[dict[str, Kind]] = {
    "concat": Kind(ConcatFusion),
    "hadamard": Kind(HadamardFusion),
    "guided_attention": Kind(GuidedAttentionFusion, ("heads",)),
    "cross_attention": Kind(CrossAttentionFusion, ("heads", "layers")),
    "co_attention": Kind(CoAttentionFusion, ("heads", "layers")),
}


class FusionCall(NamedTuple):
    """A fusion as it was written; `layers` is None where that was not said."""

    name: str
    layers: int | None = None


def parse_fusion(text: str) -> FusionCall:
    """Read a fusion; ValueError says what is wrong with it and what there is."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # ValueError: a null character, before Python 3.11.4
        tree = ast.Constant(None)
    call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
    if not isinstance(call.func, ast.Name) or call.args:
        raise ValueError(f"fusion {text!r} cannot be read; write it like 'hadamard' or 'cross_attention(layers=1)'")
    name = check_fusion(call.func.id)
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    known = [option for option in FUSIONS[name].options if option == "layers"]
    if strange := [str(option) for option in given if option not in known]:
        raise ValueError(f"fusion {name!r} has no option {', '.join(strange)}; it has: {', '.join(known) or 'none'}")
    if "layers" not in given:
        return FusionCall(name)
    value = given["layers"]
    layers = value.value if isinstance(value, ast.Constant) else None
    if type(layers) is not int or not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"fusion {text!r}: layers is a number from 1 to {MAX_LAYERS}")
    return FusionCall(name, layers)


def check_fusion(name: str) -> str:
    """Give the name back; ValueError where there is no such fusion."""
    if name not in FUSIONS:
        raise ValueError(f"fusion {name!r} is not known; choose from {', '.join(FUSIONS)}")
    return name


def build_fusion(name: str, dims: tuple[int, int, int], *, heads: int, layers: int) -> nn.Module:
    """Build a fusion for the widths of text, picture and fusion."""
    given = {"heads": heads, "layers": layers}
    kind = FUSIONS[name]
    return kind.build(*dims, **{option: given[option] for option in kind.options})
