"""The repeated blocks of a model (transformer layers, residual blocks): what checkpointing and compile work on.

Blocks are found by shape, not by name: the children of one kind in the outermost containers, and where such a child is
only a stage (a stack of blocks, and one layer at most that changes the size) the blocks within it. Of several stacks
those count whose blocks are most like a network's layers: with norms, and with two weights or more. The second half
names layers that cannot be replaced, and turns off code of torch's that would pass replaced layers over.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from strategies.structure.choice.direct_reads import direct_reads
from strategies.structure.norms import is_norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

Stack = dict[str, "nn.Module"]  # name → block, in the model's order
ADAPTED = "base_layer"  # how PEFT and this package call the layer within an adapter
PARAMETRISED = "parametrizations"  # torch's child of a layer whose weight is computed
SEVERAL = 2  # weights of a block that is more than one layer with what belongs to it


def repeated_blocks(model: nn.Module, roots: Iterable[str]) -> Stack:
    """Give name → block for each stack below `roots`; a root that belongs to no stack and has none is left out."""
    return {name: block for chain in chains(model, roots) for name, block in chain.items()}


def chains(model: nn.Module, roots: Iterable[str]) -> list[Stack]:
    """Give the repeated blocks, chain by chain: stacks of one module (`layer1`, `layer2`) are one chain.

    An encoder's and a decoder's blocks, or an image and a text tower's, are two.
    """
    found = _stacks(model, roots)
    best = max(map(_likeness, found.values()), default=0)
    grouped: dict[str, Stack] = {}
    for container, stack in found.items():
        if _likeness(stack) == best:
            grouped.setdefault(container.rpartition(".")[0], {}).update(stack)
    return list(grouped.values())


def all_blocks(model: nn.Module, roots: Iterable[str]) -> Stack:
    """Give name → block for every stack below `roots`, those of a front end (convolutions before them) too."""
    return {name: block for stack in _stacks(model, roots).values() for name, block in stack.items()}


def blocks_or_roots(model: nn.Module, roots: Iterable[str]) -> Stack:
    """Give all blocks; without any, the roots themselves."""
    roots = tuple(roots)
    return all_blocks(model, roots) or {root: model.get_submodule(root) for root in roots}


def called(blocks: Stack) -> Stack:
    """Give what is called of blocks: of a container, which a model takes apart, the parts that are more than layers."""
    from torch import nn

    found: Stack = {}
    for name, block in blocks.items():
        container = isinstance(block, nn.ModuleList | nn.ModuleDict)
        found |= called(_members(name, block)) if container else {name: block}
    return found


def _stacks(model: nn.Module, roots: Iterable[str]) -> dict[str, Stack]:
    """Give container → its blocks for the outermost stacks below `roots`."""
    found: dict[str, Stack] = {}
    for root in roots:
        _collect(root, model.get_submodule(root), found)
    return found


def _collect(name: str, module: nn.Module, found: dict[str, Stack]) -> None:
    """Add the outermost stacks at or below `module`."""
    from torch import nn

    members = _members(name, module)
    counts = Counter(map(_kind, members.values()))
    stacked = isinstance(module, nn.ModuleList | nn.Sequential)
    blocks = {path: part for path, part in members.items() if stacked and counts[_kind(part)] > 1}
    if blocks:
        found.setdefault(name, {}).update(_without_stages(blocks))
    for child, part in module.named_children():
        path = f"{name}.{child}" if name else child
        if path not in blocks:
            _collect(path, part, found)


def _members(name: str, module: nn.Module) -> Stack:
    """Give name → child for the children that have children of their own and are no layers."""
    return {path: part for path, part in _children(name, module).items() if not _is_layer(part)}


def _children(name: str, module: nn.Module) -> Stack:
    """Give full name → child."""
    return {f"{name}.{child}" if name else child: part for child, part in module.named_children()}


def _is_layer(part: nn.Module) -> bool:
    """Say whether a module is a single layer, also with an adapter or a parametrised weight."""
    children = {name for name, _ in part.named_children()}
    return ADAPTED in children or children <= {PARAMETRISED}


def _kind(part: nn.Module) -> type:
    """Give the class that a block shares with its neighbours, also with those of another make (hybrid models)."""
    from torch import nn

    return [kind for kind in type(part).__mro__ if issubclass(kind, nn.Module) and kind is not nn.Module][-1]


def _without_stages(parts: Stack) -> Stack:
    """Give the blocks within, where all parts are stages or bare containers, which are never called; else the parts."""
    if _are_pieces(parts):
        return parts
    inner = {name: _stage(name, part) for name, part in parts.items()}
    if not all(inner.values()):
        return parts
    found: Stack = {}
    for blocks in inner.values():
        found |= _without_stages(blocks)
    return found


def _are_pieces(parts: Stack) -> bool:
    """Say whether each part holds the pieces of one block, `[attention, feed_forward]`, of different makes."""
    from torch import nn

    makes = [_makes(name, part) for name, part in parts.items() if isinstance(part, nn.ModuleList | nn.ModuleDict)]
    alike = len(makes) == len(parts) and all(own == makes[0] for own in makes)
    return alike and len(makes[0]) > 1 and len(set(makes[0])) == len(makes[0])


def _makes(name: str, part: nn.Module) -> list[frozenset[type]]:
    """Give what each block-like child is made of: classes, other than torch's that any block may have."""
    from torch import nn

    usual = ("torch.", "transformers.activations")
    return [
        frozenset(
            type(inner)
            for inner in child.modules()
            if isinstance(inner, nn.MultiheadAttention) or not type(inner).__module__.startswith(usual)
        )
        for child in _members(name, part).values()
    ]


def _stage(name: str, part: nn.Module) -> Stack:
    """Give the blocks of a part that is a stage or a container; none if it is a block itself."""
    from torch import nn

    if isinstance(part, nn.ModuleList | nn.ModuleDict):
        members = _members(name, part)
        beside = [child for path, child in _children(name, part).items() if path not in members and _weights(child)]
        return {} if beside and isinstance(part, nn.ModuleDict) else members  # a router beside experts: a block
    stacks = list(_outermost_stacks(name, part))
    return _members(*stacks[0]) if len(stacks) == 1 and _is_stage(part, *stacks[0]) else {}


def _outermost_stacks(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the outermost containers below a module that hold more than single layers."""
    from torch import nn

    for child, part in module.named_children():
        path = f"{name}.{child}"
        if isinstance(part, nn.ModuleList | nn.Sequential) and _members(path, part):
            yield path, part
        else:
            yield from _outermost_stacks(path, part)


def _is_stage(part: nn.Module, name: str, stack: nn.Module) -> bool:
    """Say whether a part is a stack of layers of one class and one layer at most beside it."""
    layers = _members(name, stack)
    inside = {id(weight) for weight in _weights(stack)}
    beside = [weight for weight in _weights(part) if id(weight) not in inside]
    alike = len({type(layer) for layer in layers.values()}) == 1
    return alike and len(beside) <= 1 and _has_norms(layers) and _has_weights(layers)


def _likeness(stack: Stack) -> int:
    """Say how much blocks are like a network's layers, 0 to 2: they have norms, they have several weights."""
    return _has_norms(stack) + _has_weights(stack)


def _has_norms(stack: Stack) -> bool:
    return any(is_norm(part, name) for block in stack.values() for name, part in block.named_modules())


def _has_weights(stack: Stack) -> bool:
    return any(len(_weights(block)) >= SEVERAL for block in stack.values())


def _weights(module: nn.Module) -> list[nn.Parameter]:
    """Give the matrices of a module without those of adapters, shared ones once.

    Tokens and positions, of shape (1, n, d), are none.
    """
    found = {id(own): own for own in module.parameters(recurse=False) if own.ndim > 1 and len(own) > 1}
    children = dict(module.named_children())
    for child in [children[ADAPTED]] if ADAPTED in children else children.values():
        found |= {id(weight): weight for weight in _weights(child)}
    return list(found.values())


def uncalled_layers(module: nn.Module, prefix: str = "") -> frozenset[str]:
    """Name the layers whose weights are read or changed by others: what takes their place might never be called.

    Those inside `nn.MultiheadAttention` are among them.
    """
    from torch import nn

    names = {
        f"{owner}.{child}".lstrip(".")
        for owner, part in module.named_modules(prefix=prefix)
        if isinstance(part, nn.MultiheadAttention)
        for child, _ in part.named_modules()
        if child
    }
    read = {f"{prefix}.{name}".strip(".") for name, read in direct_reads(module).items() if read.kind != "elsewhere"}
    return frozenset(names | read)


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
