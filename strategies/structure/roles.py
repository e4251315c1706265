"""Which layer plays which role: query, key, value, output, up, down — the one table of name patterns.

Names differ (ViT `q_proj`, `fc1`; BERT `query`, `intermediate.dense`; GPT-2 `c_attn` as `Conv1D`) and change
between releases (ViT's `attention.attention.query` became `attention.q_proj`), so adapters are asked for by
role. Without a match by role the fallback is every linear layer in repeated blocks, then every linear layer.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Literal

from strategies.errors import PlanError, closest_first
from strategies.layout import is_within
from strategies.structure.blocks import repeated_blocks, uncalled_layers
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from torch import nn

# The first role whose pattern matches the end of a layer's name decides; a fused projection has three roles.
ROLES: tuple[tuple[str, str], ...] = (
    ("query", r"q_proj|query|q_lin|to_q|wq|q"),
    ("key", r"k_proj|key|k_lin|to_k|wk|k"),
    ("value", r"v_proj|value|v_lin|to_v|wv|v"),
    ("query key value", r"c_attn|qkv|qkv_proj|query_key_value|Wqkv"),
    ("down", r"mlp\.Wo|DenseReluDense\.wo"),
    (
        "output",
        r"attn\.Wo|(?:Self|EncDec)Attention\.o|o_proj|out_proj|out_lin|to_out\.0|wo|attention\.output\.dense|attention\.dense|attn\.c_proj|attn\.proj",
    ),
    ("up", r"fc1|up_proj|gate_proj|lin1|linear1|c_fc|wi(?:_[01])?|Wi|intermediate\.dense|ffn"),
    ("down", r"fc2|down_proj|lin2|linear2|mlp\.c_proj|output\.dense|ffn_output"),
)
Role = Literal["query", "key", "value", "output", "up", "down"]
QUERY_AND_VALUE = ("query", "value")
_PATTERNS = tuple((roles.split(), re.compile(rf"(?:.*\.)?(?:{pattern})")) for roles, pattern in ROLES)


def roles_of(name: str) -> list[str]:
    """Give the roles of a layer by its full name; empty when the table does not know it."""
    return next((roles for roles, pattern in _PATTERNS if pattern.fullmatch(name)), [])


def linear_layers(model: nn.Module, roots: tuple[str, ...]) -> dict[str, nn.Module]:
    """Give name → linear layer (also GPT-2's transposed `Conv1D`) below `roots`."""
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if is_within(name, roots) and (isinstance(module, nn.Linear) or is_conv1d(module))
    }


def convolution_layers(model: nn.Module, roots: tuple[str, ...]) -> dict[str, nn.Module]:
    """Give name → two-dimensional, ungrouped convolution below `roots`."""
    from torch import nn

    return {
        name: module
        for name, module in model.named_modules()
        if is_within(name, roots) and isinstance(module, nn.Conv2d) and module.groups == 1
    }


def targets(
    model: nn.Module, label: str, roots: tuple[str, ...], roles: tuple[str, ...] | None, names: tuple[str, ...] | None,
    *, default: tuple[str, ...] = QUERY_AND_VALUE, convolutions: bool = False,
) -> list[str]:  # fmt: skip
    """Choose the layers of one tower to adapt: by `names` (endings), else by `roles`, else `default` or a fallback.

    `roles=None` means the `default` roles; a tower that has none of them offers its linear layers in repeated blocks,
    else all of them, else (with `convolutions`) its convolutions. Roles asked for explicitly must match.
    """
    layers = linear_layers(model, roots)
    if convolutions:
        layers |= convolution_layers(model, roots)
    hidden = uncalled_layers(model)
    if names is not None:
        chosen = [name for name in layers if any(name == end or name.endswith("." + end) for end in names)]
    else:
        wanted = set(roles or default)
        chosen = [name for name in layers if wanted & set(roles_of(name)) and name not in hidden]
        if not chosen and roles is None:
            chosen = _fallback(model, roots, [name for name in layers if name not in hidden])
    lost = [name for name in chosen or layers if name in hidden]
    if lost:
        raise PlanError(
            f"{lost[0]!r} in {label!r} lies in nn.MultiheadAttention, which reads its weights without calling it: an "
            "adapter there would be lost. Choose layers outside it, or split the attention into linears"
        )
    _refuse_shared_layers(model, label, chosen)
    if not chosen:
        asked = f"target_modules={list(names)}" if names is not None else f"roles={list(roles or default)}"
        there = closest_first((names or roles or default)[0], {name.rpartition(".")[2] for name in layers})
        kinds = "linear or convolution layers" if convolutions else "linear layers"
        raise PlanError(f"no layer to adapt in {label!r}: {asked} matches none of its {kinds}; it has: {there or '–'}")
    return chosen


def _refuse_shared_layers(model: nn.Module, label: str, chosen: list[str]) -> None:
    """Refuse a layer that stands in several places: it would be replaced in one of them only."""
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    for name in chosen:
        if places[id(model.get_submodule(name))] > 1:
            raise PlanError(
                f"{name!r} in {label!r} stands in several places of the model and an adapter would reach one: choose "
                "others with target_modules, or give each place a layer of its own"
            )


def _fallback(model: nn.Module, roots: tuple[str, ...], names: list[str]) -> list[str]:
    """Choose where names say nothing: linear layers in repeated blocks, else linear layers, else convolutions."""
    linear = linear_layers(model, roots)
    stacked = tuple(repeated_blocks(model, roots))
    for kind in ([name for name in names if name in linear], names):
        in_blocks = [name for name in kind if stacked and is_within(name, stacked)]
        if in_blocks or kind:
            return in_blocks or kind
    return []
