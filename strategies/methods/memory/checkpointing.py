"""checkpointing — keep only each block's input and compute the rest again in the backward pass.

What: every repeated block that trains drops its activations and is run once more when its gradients are due.
Why it helps: activation memory falls from all layers to one layer plus one tensor per block.
What it costs: one more forward pass, about +30 % time; results stay the same bit for bit. When not to use it:
weights and optimizer state dominate, or the towers are frozen (nothing is kept there anyway, and checkpointing
them would only build a graph: such blocks are never wrapped).
Paper: Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016, https://arxiv.org/abs/1604.06174

Always torch's non-reentrant variant: the reentrant one loses gradients behind a frozen front end. Blocks with
batch normalisation are left alone, since running them twice would count their statistics twice. What a block changes
beside its output (a list, a cache of keys and values) it gets again as it was; a block that changes tensors in place is
refused in the first step. With `every_n=2` every second block of a tower is recomputed: half the saving for half the
extra time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.methods.memory.recomputing import Call, InPlaceWatch, Passes, Recomputed, without_caches
from strategies.options import Count
from strategies.protocol import FROZEN, Context, Kind, Strategy
from strategies.structure.blocks import blocks_or_roots, called

if TYPE_CHECKING:
    from torch import nn


def checkpoint_block(block: nn.Module, name: str) -> None:
    """Make the block called `name` drop its activations in training; names and parameters stay as they are.

    `PlanError` in the first call where it changes its inputs or buffers in place.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    plain = block.forward
    checked = False

    @wraps(plain)
    def forward(*arguments: Any, **options: Any) -> Any:
        nonlocal checked
        if not block.training:
            return plain(*arguments, **options)
        call = Call(arguments, options)
        if torch.compiler.is_compiling():
            call = without_caches(call)
            return checkpoint(plain, *call.arguments, use_reentrant=False, **call.options)
        watch = None if checked else InPlaceWatch(block, call)
        outputs = checkpoint(Passes(block, name, plain, call), *arguments, use_reentrant=False, **options)
        if watch is not None:
            watch.refuse_changes(name)
        checked = True
        return outputs

    block.forward = forward


def can_checkpoint(block: nn.Module) -> bool:
    """Say whether a block has something that trains and nothing that counts its calls."""
    from torch.nn.modules.batchnorm import _BatchNorm

    counts = any(isinstance(part, _BatchNorm) and part.track_running_stats for part in block.modules())
    return not counts and any(parameter.requires_grad for parameter in block.parameters())


@final
@dataclass(frozen=True, kw_only=True)
class Checkpointing(Strategy):
    """Recompute the activations of the repeated blocks of `scope` that train, or of every `every_n`-th of a tower."""

    name: ClassVar[str] = "checkpointing"
    kind: ClassVar[Kind] = "memory"
    stage: ClassVar[int] = 40
    slots: ClassVar[frozenset[str]] = frozenset({"activations"})
    inert_on: ClassVar[frozenset[str]] = frozenset({FROZEN})

    every_n: Count = 1
    scope: str | None = None

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any]:
        """Keep the other loop from doing it, too."""
        del facts
        return {"recomputes": True}

    def transform(self, model: nn.Module, context: Context) -> None:
        """Wrap the blocks in place."""
        chosen: list[tuple[str, nn.Module]] = []
        for roots in context.layout.groups(model, self.scope).values():
            blocks = [part for part in called(blocks_or_roots(model, roots)).items() if can_checkpoint(part[1])]
            chosen += blocks[:: self.every_n]
        if not chosen:
            raise PlanError(f"checkpointing: {self._why_not(model, context)}; leave it out, or name another scope")
        for name, block in chosen:
            checkpoint_block(block, name)
        context.member_state[self] = Recomputed(tuple(name for name, _ in chosen))

    def _why_not(self, model: nn.Module, context: Context) -> str:
        """Say why no block was chosen."""
        groups = context.layout.groups(model, self.scope).values()
        found = [blocks_or_roots(model, roots) for roots in groups]
        blocks = [block for one in found for block in called(one).values()]
        if any(found) and not blocks:
            return "the model takes every block in scope apart and calls single layers, so nothing could be recomputed"
        trains = any(parameter.requires_grad for block in blocks for parameter in block.parameters())
        return "every block in scope that trains holds batch normalisation" if trains else "no block in scope trains"
