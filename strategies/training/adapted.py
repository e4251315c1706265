"""Which layers a plan has adapted, and what else is to be said of layers: as data, and as lines of `describe()`.

Blocks that are alike share a line: `encoder.layer 0–11 × (attention.q_proj, attention.v_proj)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from strategies.language.rates import weights_members
from strategies.structure.blocks import all_blocks
from strategies.structure.layers.stand_ins import wrapped_layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy

K = TypeVar("K")
V = TypeVar("V")
MOST_NAMES = 8  # in one line


def adapted_layers(model: nn.Module, layout: Layout, members: Sequence[Strategy]) -> dict[str, str]:
    """Give name → kind of every layer with an adapter, such as `Linear → lora`, in the model's order."""
    owned = [(member.name, layout.module_names(model, member.scope_name())) for member in weights_members(members)]
    found: dict[str, str] = {}
    inner: set[int] = set()  # adapters within adapters
    for name, part in model.named_modules():
        base = wrapped_layer(part)
        inner.add(id(base))
        if base is not None and id(part) not in inner:
            word = next((word for word, names in owned if name in names), "?")
            found[name] = f"{type(base).__name__} → {word}"
    return found


def layer_lines(
    model: nn.Module, layout: Layout, members: Sequence[Strategy], notes: Mapping[str, Mapping[str, str]]
) -> list[str]:
    """Give the lines of a description: adapted layers by kind, notes by what they say, parameters in no scope."""
    blocks = list(all_blocks(model, ("",)))
    lines = []
    for kind, names in _by_value(adapted_layers(model, layout, members)).items():
        lines.append(f"  adapters   {len(names)} {kind}: {'; '.join(compact(names, blocks))}")
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for why, names in _by_value({name: why for said in notes.values() for name, why in said.items()}).items():
        values = sum(sizes.get(name, 0) for name in names)
        size = f" ({values:,} values)" if values else ""
        lines.append(f"  note       {'; '.join(compact(names, blocks))}{size}: {why}")
    return lines + _outside(model, layout, members)


def _outside(model: nn.Module, layout: Layout, members: Sequence[Strategy]) -> list[str]:
    """Say which parameters lie in no scope of the plan's, or of the model's, and whether they train."""
    trains = {name: (parameter.numel(), parameter.requires_grad) for name, parameter in model.named_parameters()}
    scopes = [member.scope_name() for member in weights_members(members)]
    planned = frozenset().union(*(layout.parameter_names(model, scope) for scope in scopes))
    offered = frozenset().union(*(layout.owned(scope, trains) for scope in layout.scopes))
    lines = []
    for words, names in (
        ("in no scope of the plan", [n for n in trains if n not in planned and not layout.is_new(n)]),
        ("in no scope of the model", [n for n in trains if n not in offered]),
    ):
        if names:
            total, trained = sum(trains[n][0] for n in names), sum(trains[n][0] for n in names if trains[n][1])
            shown = "; ".join(compact(names, list(all_blocks(model, ("",)))))
            lines.append(f"  outside    {trained:,} of {total:,} parameters {words} train: {shown}")
    return lines


def compact(names: Iterable[str], blocks: Sequence[str]) -> list[str]:
    """Write names shortly: those of blocks that are alike together, other numbers as ranges."""
    inside: dict[str, dict[int, list[str]]] = {}
    others = []
    block_of = {block: block.rpartition(".") for block in blocks}
    for name in names:
        block = next((block for block in blocks if name.startswith(block + ".")), None)
        if block is None or not block_of[block][2].isdigit():
            others.append(name)
        else:
            container, _, number = block_of[block]
            inside.setdefault(container, {}).setdefault(int(number), []).append(name[len(block) + 1 :])
    found = []
    for container, members in inside.items():
        for layers, numbers in _by_value({number: tuple(_ranged(own)) for number, own in members.items()}).items():
            found.append(f"{container} {_ranges(numbers)} × ({', '.join(layers)})".lstrip())
    rest = _ranged(others)
    more = [f"… {len(rest) - MOST_NAMES} more"] if len(rest) > MOST_NAMES else []
    return [*found, *rest[:MOST_NAMES], *more]


def _ranged(names: Iterable[str]) -> list[str]:
    """Write names that differ in their first number once, with a range: `experts.0–7.w1`."""
    split = {name: re.split(r"(?<=\.)(\d+)(?=\.|$)", f".{name}", maxsplit=1) for name in names}
    found: dict[tuple[str, ...], list[int]] = {}
    for parts in split.values():
        found.setdefault((parts[0], parts[-1]) if len(parts) > 1 else (parts[0],), []).extend(map(int, parts[1:2]))
    ranges = {key: _ranges(numbers).replace(" ", "") for key, numbers in found.items()}
    return [f"{key[0]}{ranges[key]}{''.join(key[1:])}".lstrip(".") for key in found]


def _ranges(numbers: Iterable[int]) -> str:
    """Write numbers as ranges: 0–3, 6."""
    ordered = sorted(set(numbers))
    starts = [n for n in ordered if n - 1 not in ordered]
    ends = [n for n in ordered if n + 1 not in ordered]
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True))


def _by_value(mapping: Mapping[K, V]) -> dict[V, list[K]]:
    """Give value → keys, in the order in which values first occur."""
    found: dict[V, list[K]] = {}
    for key, value in mapping.items():
        found.setdefault(value, []).append(key)
    return found
