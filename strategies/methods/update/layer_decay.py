"""layer_decay — lower learning rates for the layers nearer to the input.

What: with n repeated blocks in a tower, block k (from 1) trains with rate·decay^(n+1−k), what comes before the blocks
(embeddings) with rate·decay^(n+1), and what follows them with the rate itself. Fusion and head keep theirs.
Why it helps: early layers hold general features, which large steps would spoil; a common part of fine-tuning ViTs
and BERTs well. Costs no memory and no time.
What it costs: one more value to tune: with 12 blocks the embeddings get 0.8^13 = 5 % of the rate. When not to use it:
the data look unlike those of the pretraining, so that early layers have to change, or only few layers train.
Paper: Clark et al., ELECTRA, 2020, https://arxiv.org/abs/2003.10555 (0.8 for its base model, the default here); Bao et
al., BEiT, 2021, https://arxiv.org/abs/2106.08254

Works on adapters too: those in block k get the block's factor. Without repeated blocks the tower's parts count as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.options import Range
from strategies.protocol import FROZEN, Context, Kind, Strategy
from strategies.structure.depth import block_names, depths

if TYPE_CHECKING:
    from torch import nn

Decay = Annotated[float, Range("between 0 and 1", lambda value: 0 < value < 1)]


@final
@dataclass(frozen=True, kw_only=True)
class LayerDecay(Strategy):
    """Rates in the towers of `scope` fall by the factor `decay` with each block towards the input."""

    name: ClassVar[str] = "layer_decay"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({"rates per layer"})
    inert_on: ClassVar[frozenset[str]] = frozenset({FROZEN})

    decay: Decay = 0.8
    scope: str | None = None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Find the factor of each parameter: nothing is changed yet."""
        context.member_state[self] = self._factors(model, context)

    def _factors(self, model: nn.Module, context: Context) -> dict[str, float]:
        """Give parameter → factor, for all towers with at least two blocks."""
        factors: dict[str, float] = {}
        for roots in context.layout.groups(model, self.scope).values():
            blocks = block_names(model, roots)
            if len(blocks) > 1:
                last = len(blocks) + 1
                found = depths(model, roots, blocks).items()
                base = [(name, depth) for name, depth in found if not context.layout.is_new(name)]
                factors |= {name: self.decay ** (last - depth) for name, depth in base}
        if not factors:
            raise PlanError("layer_decay: nothing in scope has two or more blocks to tell apart; set lr instead")
        return factors

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Split each group of pretrained weights or adapters by factor."""
        factors = {id(model.get_parameter(name)): factor for name, factor in context.member_state[self].items()}
        split: list[dict[str, Any]] = []
        for group in groups:
            parts: dict[float, list[Any]] = {}
            for parameter in group["params"]:
                factor = 1.0 if group["name"] == "new" else factors.get(id(parameter), 1.0)
                parts.setdefault(factor, []).append(parameter)
            split += [{**group, "params": part, "lr": group["lr"] * factor} for factor, part in parts.items()]
        return split
