"""Which layer plays which role: query, key, value, output, up, down — the one table of name patterns.

Names differ (ViT `q_proj`, `fc1`; BERT `query`, `intermediate.dense`; GPT-2 `c_attn` as `Conv1D`) and change between
releases, so adapters are asked for by role. A fused projection has several roles; a gate of a feed-forward part is an
`up`. Layers of a block whose names say nothing are a feed-forward part where they look like one: into a greater width
and back.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from strategies.layout import is_within
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

_ATTENTION = r"\w*(?:[Aa]ttention|attn|_att)"
_FEED_FORWARD = r"(?:mlp|ffn|ff|feed_forward|DenseReluDense|expert\w*|experts\.\w+)"
# The first line with a pattern (one a word) that fits the end of a layer's name decides.
ROLES: tuple[tuple[str, str], ...] = (
    ("up", rf"{_FEED_FORWARD}\.(?:key|in_proj|proj_in|linear_1|net\.0\.proj|dense\.dense|intermediate)"),
    ("down", rf"{_FEED_FORWARD}\.(?:value|out_proj|proj_out|linear_2|wo|Wo|net\.2|output)"),
    (
        "query key value",
        r"""c_attn att_proj qkv qkv_proj qkv_linear query_key_value queries_keys_values Wqkv in_proj_qkvz?
        attention\.self\.in_proj""",
    ),
    ("query key", r"query_key"),
    ("key value", r"kv kv_proj to_kv keys_values kv_[ab]_proj kv_a_proj_with_mqa"),
    (
        "query",
        rf"""q wq Wq q_proj query queries query_proj query_global q_lin q_linear linear_q q_attn q_head to_q to_query
        q_[ab]_proj wq_[ab] projection_query (?:\w+_)?(?:q|query)_content_proj [ew]2[ew]_query attention\.receptance
        layout_query project_q {_ATTENTION}\.vision_proj""",
    ),
    (
        "key",
        rf"""k wk Wk k_proj key key_proj key_global k_lin k_linear linear_k k_head to_k to_key projection_key
        (?:\w+_)?(?:k|key)_content_proj layout_key project_k key_(?:protein|structure|msa) {_ATTENTION}\.text_proj""",
    ),
    (
        "value",
        r"""v wv Wv v_proj value value_proj value_global v_lin v_linear linear_v v_head to_v to_value projection_value
        \w+_attn_(?:v|value)_proj layout_value project_v value_(?:protein|structure|msa) values_(?:vision|text)_proj""",
    ),
    (
        "output",
        rf"""{_ATTENTION}\.(?:dense|output(?:\.dense)?|proj|projection|c_proj|projection_layer|Wo|o|out|attention_out|post|final)
        o_proj out_proj o_b_proj output_proj out_lin linear_out to_out(?:\.0)? post_proj wo
        projection\.linear out_(?:vision|text)_proj""",
    ),
    (
        "up",
        r"""fc1 fc_in up_proj gate_proj gate_up_proj up_gate_proj w1 w3 w12 lin1 linear1 linear_fc1 linear_up c_fc
        wi(?:_[01])? Wi intermediate(?:_query)?\.dense \w+_inter\.dense intermediate_dense dense_h_to_4h dense1 pwconv1
        pointwise_conv1 input_linear ffw_layer_1 weights_in ffn""",
    ),
    (
        "down",
        r"""fc2 fc_out down_proj w2 lin2 linear2 linear_fc2 linear_down mlp\.c_proj (?:\w+_)?output(?:_query)?\.dense
        output_dense dense_4h_to_h dense2 pwconv2 pointwise_conv2 output_linear ffw_layer_2 weights_out ffn_output""",
    ),
)
Role = Literal["query", "key", "value", "output", "up", "down"]
EVERY_ROLE: tuple[str, ...] = get_args(Role)
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
    for block in blocks:
        shapes = {name: shape for name in layers if is_within(name, (block,)) and (shape := _shape(layers[name]))}
        widths = {shape.inputs for name, shape in shapes.items() if roles[name]}
        unknown = [name for name in shapes if not roles[name]]
        for place, name in enumerate(unknown):
            ups = _widening(unknown[:place], name, shapes)
            if ups and (not widths or shapes[name].outputs in widths):
                roles |= {**{up: ["up"] for up in ups}, name: ["down"]}
    return roles


def _widening(before: Sequence[str], down: str, shapes: Mapping[str, _Shape]) -> list[str]:
    """Name the one or two layers in front of `down` that make its inputs from its outputs; none if it is no `down`."""
    narrow = shapes[down]
    wide = (_Shape(narrow.outputs, narrow.inputs), _Shape(narrow.outputs, 2 * narrow.inputs))  # the latter holds a gate
    ups = [name for name in before[-1:] if shapes[name] in wide]
    ups += [name for name in before[-2:-1] if ups and shapes[name] == shapes[ups[0]] == wide[0]]
    return ups if narrow.inputs > narrow.outputs else []


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
