"""progressive_freezing — train everything at first, then freeze layer after layer from the input on.

What: after the share `start` of the training, each tower's embeddings and then its repeated blocks stop training one
by one, evenly until the end, when the share `level` of them would rest. Norms behind the blocks train on, and so do
fusion and head.
Why it helps: early layers settle first; each one that rests needs no gradient, no optimizer state and no backward
pass, so steps get faster and lighter towards the end.
What it costs: nothing before `start`, so the peak memory is that of full fine-tuning; some quality if it starts too
early. Under `compile` each newly frozen layer means another compilation of the whole model; compiled block by block
there are two more in all. When not to use it: memory is short (freeze, adapters), or early layers must change.
Paper: Brock et al., FreezeOut, 2017, https://arxiv.org/abs/1706.04983; the schedule is that of layer freezing in
Composer, https://docs.mosaicml.com/projects/composer/en/stable/method_cards/layer_freezing.html

Needs `total_steps`. Batch norms that rest keep their statistics from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.options import Range, Rate, Share
from strategies.protocol import WEIGHTS, Context, Kind, State, Strategy
from strategies.structure.depth import block_names, depths
from strategies.structure.freezing import freeze_batch_norms
from strategies.structure.temporary_freezing import freeze, trainable

if TYPE_CHECKING:
    from torch import nn

Level = Annotated[float, Range("above 0, up to 1", lambda value: 0 < value <= 1)]


@final
@dataclass(frozen=True, kw_only=True)
class ProgressiveFreezing(Strategy):
    """From `start` (share of the training) on, the layers of `scope` freeze from the front, up to `level` of them."""

    name: ClassVar[str] = "progressive_freezing"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    trains_scope: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"start": 0.0}

    start: Share = 0.5
    level: Level = 1.0
    scope: str | None = None
    lr: Rate = 1e-4
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Note what is to rest, tower by tower, in order; nothing is changed yet."""
        if context.total_steps is None:
            raise PlanError("progressive_freezing: needs the length of the training: give total_steps to apply")
        towers: list[list[list[str]]] = []
        owned = context.layout.parameter_names(model, self.scope)
        for roots in context.layout.groups(model, self.scope).values():
            blocks = block_names(model, roots)
            found = {name: depth for name, depth in depths(model, roots, blocks).items() if name in owned}
            layers = [[name for name, own in found.items() if own == depth] for depth in range(len(blocks) + 1)]
            towers.append([layer for layer in (trainable(model, names) for names in layers) if layer])
        if not any(towers):
            raise PlanError("progressive_freezing: nothing in scope is in a layer that trains; leave it out")
        context.member_state[self] = towers

    def num_frozen(self, step: int, total_steps: int, layers: int) -> int:
        """Say how many of a tower's layers rest in update number `step`."""
        progress = (step / total_steps - self.start) / (1 - self.start)
        return int(min(1.0, max(0.0, progress)) * self.level * layers)

    def before_step(self, state: State) -> None:
        """Freeze what is due."""
        assert state.total_steps is not None
        for layers in state.member_state[self]:
            for names in layers[: self.num_frozen(state.step, state.total_steps, len(layers))]:
                if trainable(state.model, names):
                    freeze(state, names)
                    freeze_batch_norms(state.model.get_submodule(name.rpartition(".")[0]) for name in names)
