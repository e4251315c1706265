"""How deep a parameter lies in its tower: before the repeated blocks, in one of them, or behind them.

What treats layers by depth (rates that fall towards the input, blocks that rest in turn) counts with these numbers.
The order is the one in which the model registered its parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.layout import is_within
from strategies.structure.blocks import repeated_blocks

if TYPE_CHECKING:
    from torch import nn


def block_names(model: nn.Module, roots: tuple[str, ...]) -> list[str]:
    """Name the repeated blocks of a tower that hold parameters, first to last; without any, the tower's roots."""
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    blocks = repeated_blocks(model, roots) or {root: model.get_submodule(root) for root in roots}
    return sorted(
        (name for name, block in blocks.items() if any(True for _ in block.parameters())), key=order.__getitem__
    )


def depths(model: nn.Module, roots: tuple[str, ...], blocks: list[str]) -> dict[str, int]:
    """Give the depth of each parameter below `roots`: 0 before the blocks, k in block k of n, n + 1 behind them.

    What lies between two blocks belongs to the earlier one.
    """
    found: dict[str, int] = {}
    reached = 0
    for name, _ in model.named_parameters():
        if not is_within(name, roots):
            continue
        place = next((number for number, block in enumerate(blocks, 1) if is_within(name, (block,))), None)
        if place is not None:
            reached = max(reached, place)
            found[name] = place
        else:
            found[name] = reached if reached < len(blocks) else len(blocks) + 1
    return found
