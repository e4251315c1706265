"""The repeated blocks of a model (transformer layers, residual stages): what checkpointing and compile work on.

Blocks are found by shape, not by name: the outermost containers with at least two children of one class that
have children of their own. A scope without such a stack counts as one block. The second half names the two
torch modules that read the weights of their children directly and never call them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def repeated_blocks(model: nn.Module, roots: Iterable[str]) -> dict[str, nn.Module]:
    """Give name → block for each stack below `roots`; a root that belongs to no stack and has none is left out."""
    blocks: dict[str, nn.Module] = {}
    for root in roots:
        _collect(root, model.get_submodule(root), blocks)
    return blocks


def blocks_or_roots(model: nn.Module, roots: Iterable[str]) -> dict[str, nn.Module]:
    """Give the repeated blocks; without any, the roots themselves."""
    roots = tuple(roots)
    return repeated_blocks(model, roots) or {root: model.get_submodule(root) for root in roots}


def _collect(name: str, module: nn.Module, blocks: dict[str, nn.Module]) -> None:
    """Add the outermost stacks at or below `module`."""
    from torch import nn

    children = dict(module.named_children())
    stacked = {child: part for child, part in children.items() if any(True for _ in part.children())}
    counts = Counter(type(part) for part in stacked.values())
    is_stack = isinstance(module, nn.ModuleList | nn.Sequential)
    for child, part in children.items():
        path = f"{name}.{child}" if name else child
        if is_stack and child in stacked and counts[type(part)] > 1:
            blocks[path] = part
        else:
            _collect(path, part, blocks)


def uncalled_layers(module: nn.Module, prefix: str = "") -> frozenset[str]:
    """Name the linear layers inside `nn.MultiheadAttention`: their weights are read, their forward is never called."""
    from torch import nn

    names = {
        f"{owner}.{child}".lstrip(".")
        for owner, part in module.named_modules(prefix=prefix)
        if isinstance(part, nn.MultiheadAttention)
        for child, _ in part.named_modules()
        if child
    }
    return frozenset(names)


def disable_fast_path(model: nn.Module, *, everywhere: bool = False) -> None:
    """Turn off the evaluation fast path of torch's transformer encoder, which reads `linear1.weight` directly.

    With it a replaced or adapted layer would train and then vanish silently in evaluation. Encoders with nothing
    replaced keep it, unless `everywhere`.
    """
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and (everywhere or not _plain(module)):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder) and (everywhere or not all(map(_plain, module.layers))):
            module.use_nested_tensor = False


def _plain(layer: nn.Module) -> bool:
    """Say whether the two feed-forward layers are still torch's own."""
    from torch import nn

    return all(type(layer.get_submodule(name)) is nn.Linear for name in ("linear1", "linear2"))
