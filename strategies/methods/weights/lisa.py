"""lisa — train a few random layers at a time, with full rank.

What: in each tower `n` repeated blocks, drawn anew every `period` updates, train; the others rest. Embeddings, what
else lies outside the blocks, fusion and head always train. The optimizer forgets the blocks that go to rest.
Why it helps: gradients and optimizer state for `n` blocks instead of all, while every weight is reached in the end
and changes with full rank; nothing is added to the model.
What it costs: a saved file as large as after full fine-tuning, and the moments start at zero with every draw; the
backward pass runs down to the embeddings, so time falls less than memory. Embeddings with a large vocabulary keep
their optimizer state and limit what is won. A compiler compiles again for blocks that rest and for blocks that train.
When not to use it: short runs in which most blocks are hardly ever drawn, or where a small file matters (lora).
Paper: Pan et al., LISA: Layerwise Importance Sampling, 2024, https://arxiv.org/abs/2403.17919

The draws depend on the plan's seed alone and leave torch's random stream as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, final

from strategies.errors import PlanError
from strategies.layout import is_within
from strategies.options import Count, Rate
from strategies.protocol import WEIGHTS, Context, Kind, State, Strategy
from strategies.structure.depth import block_names
from strategies.structure.temporary_freezing import freeze, trainable, unfreeze

if TYPE_CHECKING:
    from torch import nn


class TowerBlocks(NamedTuple):
    """The blocks of each tower as the names of their parameters, and the seed of the draws."""

    towers: list[list[list[str]]]
    seed: int


@final
@dataclass(frozen=True, kw_only=True)
class Lisa(Strategy):
    """In each tower of `scope`, `n` random blocks train for `period` updates, then others."""

    name: ClassVar[str] = "lisa"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    trains_scope: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"n": 1}

    n: Count = 2
    period: Count = 5
    scope: str | None = None
    lr: Rate = 1e-4
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Note the blocks; nothing is changed yet."""
        towers: list[list[list[str]]] = []
        owned = context.layout.parameter_names(model, self.scope)
        names = [name for name, _ in model.named_parameters() if name in owned]
        for label, roots in context.layout.groups(model, self.scope).items():
            blocks = block_names(model, roots)
            if len(blocks) <= self.n:
                raise PlanError(
                    f"lisa: n={self.n}, but {label!r} has {len(blocks)} blocks, so none would ever be frozen; take a "
                    "smaller n, or full"
                )
            own = [[name for name in names if is_within(name, (block,))] for block in blocks]
            towers.append([trainable(model, block) for block in own])
        context.member_state[self] = TowerBlocks(towers, context.seed)

    def before_step(self, state: State) -> None:
        """Draw again when a period is over."""
        if state.step % self.period == 0:
            self._draw_blocks(state)

    def load_state_dict(self, state: State, saved: Any) -> None:
        """Let the blocks of the period under way train."""
        del saved
        self._draw_blocks(state)

    def _draw_blocks(self, state: State) -> None:
        blocks_of: TowerBlocks = state.member_state[self]
        for tower, blocks in enumerate(blocks_of.towers):
            active = self.draw(blocks_of.seed, state.step // self.period, tower, len(blocks))
            for number, names in enumerate(blocks):
                if number in active:
                    unfreeze(state, names)
                else:
                    freeze(state, names)

    def draw(self, seed: int, number: int, tower: int, blocks: int) -> list[int]:
        """Give the blocks that train in period `number`."""
        import torch

        generator = torch.Generator().manual_seed(((seed * 1_000_003 + number) * 1_009 + tower) % 2**63)
        return torch.randperm(blocks, generator=generator)[: self.n].tolist()
