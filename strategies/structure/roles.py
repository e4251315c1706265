"""Which layer plays which role: query, key, value, output, up, down — the one table of name patterns.

Names differ (ViT `q_proj`, `fc1`; BERT `query`, `intermediate.dense`; GPT-2 `c_attn` as `Conv1D`) and change between
releases, so adapters are asked for by role. A fused projection has several roles; a gate of a feed-forward part is an
`up`. Layers whose names say nothing are a feed-forward part where they look like one: two or three in a module of
their own, into a width and back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from strategies.layout import is_within
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

_ATTENTION = r"\w*(?:[Aa]ttention|attn|_att)"
_FEED_FORWARD = r"(?:mlp|ffn|ff|feed_forward|DenseReluDense|expert\w*|experts\.\w+)"
# The first line with a pattern (one a word) that fits the end of a layer's name decides.
ROLES: tuple[tuple[str, str], ...] = (
    ("up", rf"{_FEED_FORWARD}\.(?:key|in_proj|net\.0\.proj|dense\.dense|intermediate)"),
    ("down", rf"{_FEED_FORWARD}\.(?:value|out_proj|wo|Wo|net\.2|output)"),
    (
        "query key value",
        r"""c_attn att_proj qkv qkv_proj qkv_linear query_key_value queries_keys_values Wqkv in_proj_qkvz?
        attention\.self\.in_proj""",
    ),
    ("query key", r"query_key"),
    ("key value", r"kv kv_proj to_kv kv_[ab]_proj kv_a_proj_with_mqa"),
    (
        "query",
        r"""q wq Wq q_proj query query_proj query_global q_lin q_linear linear_q q_attn q_head to_q to_query q_[ab]_proj
        wq_[ab] projection_query (?:\w+_)?(?:q|query)_content_proj [ew]2[ew]_query attention\.receptance""",
    ),
    (
        "key",
        r"""k wk Wk k_proj key key_proj key_global k_lin k_linear linear_k k_head to_k to_key projection_key
        (?:\w+_)?(?:k|key)_content_proj""",
    ),
    (
        "value",
        r"""v wv Wv v_proj value value_proj value_global v_lin v_linear linear_v v_head to_v to_value projection_value
        \w+_attn_(?:v|value)_proj""",
    ),
    (
        "output",
        rf"""{_ATTENTION}\.(?:dense|output(?:\.dense)?|proj|projection|c_proj|Wo|o|out)
        o_proj out_proj o_b_proj output_proj out_lin linear_out to_out(?:\.0)? post_proj wo""",
    ),
    (
        "up",
        r"""fc1 fc_in up_proj gate_proj gate_up_proj up_gate_proj w1 w3 w12 lin1 linear1 linear_fc1 linear_up c_fc
        wi(?:_[01])? Wi intermediate\.dense intermediate_dense dense_h_to_4h dense1 pwconv1 weights_in ffn""",
    ),
    (
        "down",
        r"""fc2 fc_out down_proj w2 lin2 linear2 linear_fc2 linear_down mlp\.c_proj output\.dense output_dense
        dense_4h_to_h dense2 pwconv2 weights_out ffn_output""",
    ),
)
Role = Literal["query", "key", "value", "output", "up", "down"]
QUERY_AND_VALUE = ("query", "value")
ALL_LINEAR: Final = ("all-linear",)  # in place of roles: every linear layer
# A module that only wraps a linear layer (`q_proj.linear`) gives its name to it.
_PATTERNS = tuple(
    (roles.split(), re.compile(rf"(?:.*\.)?(?:{'|'.join(words.split())})(?:\.linear)?")) for roles, words in ROLES
)


def roles_of(name: str) -> list[str]:
    """Give the roles of a layer by its full name; empty when the table does not know it."""
    return next((roles for roles, pattern in _PATTERNS if pattern.fullmatch(name)), [])


class _Shape(NamedTuple):
    """Inputs and outputs of a linear layer."""

    inputs: int
    outputs: int


def roles_in(layers: Mapping[str, nn.Module], blocks: Iterable[str] = ()) -> dict[str, list[str]]:
    """Give name → roles of the layers of one tower: by name, else as feed-forward parts of `blocks`."""
    roles = {name: roles_of(name) for name in layers}
    within = tuple(blocks)
    parts: dict[str, dict[str, _Shape]] = {}
    for name, layer in layers.items():
        shape = _shape(layer)
        if shape is not None and is_within(name, within):
            parts.setdefault(name.rpartition(".")[0], {})[name] = shape
    for part in parts.values():
        if not any(roles[name] for name in part):
            roles |= _feed_forward(part)
    return roles


def _feed_forward(part: Mapping[str, _Shape]) -> dict[str, list[str]]:
    """Give the roles of two or three layers that widen and narrow again, the last one narrowing; else none."""
    *ups, down = part.items()
    widths = {shape for _, shape in ups}
    if len(ups) not in (1, 2) or len(widths) != 1:
        return {}
    up, narrow = widths.pop(), down[1]
    gated = len(ups) == 1 and up.outputs == 2 * narrow.inputs
    if up.inputs != narrow.outputs or not (gated or up.outputs == narrow.inputs) or narrow.inputs < narrow.outputs:
        return {}
    return {**{name: ["up"] for name, _ in ups}, down[0]: ["down"]}


def _shape(layer: nn.Module) -> _Shape | None:
    """Give a linear layer's width at both ends, also `Conv1D`'s; `None` for convolutions."""
    weight = getattr(layer, "weight", None)
    sizes = (getattr(layer, "in_features", None), getattr(layer, "out_features", None))
    if None not in sizes:
        return _Shape(int(sizes[0] or 0), int(sizes[1] or 0))
    return _Shape(*weight.shape) if weight is not None and weight.ndim == 2 else None  # noqa: PLR2004


def linear_layers(model: nn.Module, roots: tuple[str, ...]) -> dict[str, nn.Module]:
    """Give name → linear layer (also a subclass's, and GPT-2's transposed `Conv1D`) below `roots`."""
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
