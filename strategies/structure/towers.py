"""The pretrained towers of a model that offers no scopes: encoder and decoder, text and image, or all as one body.

A tower is a model in the model: a part that holds repeated blocks of its own. In a model of transformers that is a part
that is one of their models, too, and whose blocks have linear layers: a convolutional front end belongs to the tower
that it feeds. Stages that follow each other (`layer1`, `layer2`, …) are one tower.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from strategies.layout import BODY, EVERYTHING, NEW_PARTS, is_within
from strategies.structure.blocks import repeated_blocks
from strategies.structure.linear_layers import is_conv1d
from strategies.structure.marks import is_transformers

if TYPE_CHECKING:
    from torch import nn


def find_towers(model: nn.Module, new: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Give label → names of the modules of each tower, without `new` parts; label and name of a tower are the same.

    What stands before the first tower belongs to it, what stands behind a tower to that. With less than two it is all
    one, `body`. Modules are as large as can be: a new part splits what holds it, but never a repeated block.
    """
    blocks = tuple(repeated_blocks(model, [""]))
    parameters = {name for name, _ in model.named_parameters()}
    splitting = tuple(
        name for name in new if name not in parameters and (name in blocks or not is_within(name, blocks))
    )
    towers = tower_names(model, splitting)
    if len(towers) < 2 or {BODY, EVERYTHING, *NEW_PARTS} & {*towers}:  # noqa: PLR2004 - one is the body
        return {BODY: tuple(_roots(model, "", splitting, ()))}
    found: dict[str, list[str]] = {tower: [] for tower in towers}
    current = towers[0]
    for root in _roots(model, "", splitting, tuple(towers)):
        current = next((tower for tower in towers if is_within(root, (tower,))), current)
        found[current].append(root)
    return {tower: tuple(roots) for tower, roots in found.items()}


def tower_names(model: nn.Module, new: tuple[str, ...] = (), name: str = "") -> list[str]:
    """Name the towers in a module called `name`, outside `new` parts: none in it, itself, if it has repeated blocks."""
    from torch import nn

    children = {f"{name}.{child}".lstrip("."): part for child, part in model.named_children()}
    stages = Counter(map(_without_number, children))
    inner = [
        tower
        for path, part in children.items()
        if stages[_without_number(path)] == 1 and not isinstance(part, nn.ModuleList | nn.Sequential)
        if not is_within(path, new) and _may_hold_towers(model, part)
        for tower in tower_names(part, new, path)
    ]
    return inner or ([name] if name and repeated_blocks(model, [""]) else [])


def _without_number(path: str) -> str:
    return re.sub(r"\d+$", "#", path)


def _may_hold_towers(parent: nn.Module, part: nn.Module) -> bool:
    from torch import nn

    blocks = repeated_blocks(part, [""]).values()
    if not is_transformers(parent):
        return bool(blocks)
    linear = any(isinstance(layer, nn.Linear) or is_conv1d(layer) for block in blocks for layer in block.modules())
    return linear and any(is_transformers(inner) for inner in part.modules())


def _roots(model: nn.Module, name: str, new: tuple[str, ...], towers: tuple[str, ...]) -> list[str]:
    """List the largest modules with parameters that hold no part of `new` and no tower but themselves."""
    if name and is_within(name, new):
        return []
    if not any(is_within(part, (name,)) and part != name for part in (*new, *towers)):
        return [name] if any(True for _ in model.parameters()) else []
    children = model.named_children()
    return [root for child, part in children for root in _roots(part, f"{name}.{child}".lstrip("."), new, towers)]
