"""freeze — train only fusion and head; the pretrained towers stay as they are.

What: no weight of the scope trains, except in the last `last_n` repeated blocks of each tower (of an encoder and of a
decoder, where a tower has both); batch norms that rest use and keep their pretrained statistics, in training too.
Why it helps: no gradients, no optimizer state and no kept activations in the towers, so a step is one forward
pass and little more.
What it costs: the towers' features must already be good for the task. When not to use it: the task is far from
what the towers were pretrained on.
Paper: Donahue et al., DeCAF, 2013, https://arxiv.org/abs/1310.1531; when it beats full fine-tuning: Kumar et
al., Fine-Tuning can Distort Pretrained Features, 2022, https://arxiv.org/abs/2202.10054
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.errors import PlanError
from strategies.options import Natural, Rate
from strategies.protocol import FROZEN, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.blocks import chains
from strategies.structure.freezing import freeze_batch_norms, freeze_parameters

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Freeze(Strategy):
    """Weights of `scope` (default: all but fusion and head) do not train, but for the last `last_n` blocks."""

    name: ClassVar[str] = "freeze"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN, FROZEN_BASE})

    scope: str | None = None
    last_n: Natural = 0
    lr: Rate = 1e-4
    head_lr: Rate = 1e-3

    def capabilities(self) -> frozenset[str]:
        """Provide a frozen base, unless the last blocks train."""
        return frozenset() if self.last_n else self.provides

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope's parameters, then let the last blocks of each tower train again."""
        layout = context.layout
        trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
        freeze_parameters(model, layout.parameter_names(model, self.scope))
        frozen_modules = {id(part): part for part in map(model.get_submodule, layout.module_names(model, self.scope))}
        for label, roots in layout.groups(model, self.scope).items() if self.last_n else ():
            for chain in chains(model, roots) or [{}]:
                if len(chain) < self.last_n:
                    where = "".join(f", from {first} on" for first in list(chain)[:1])
                    blocks = f"{len(chain)} repeated blocks{where}"
                    raise PlanError(f"freeze: last_n={self.last_n}, but {label!r} has {blocks}")
                for part in (part for block in list(chain.values())[-self.last_n :] for part in block.modules()):
                    own = list(part.parameters(recurse=False))
                    again = [parameter for parameter in own if id(parameter) in trained]
                    if again or not own:
                        frozen_modules.pop(id(part), None)
                    for parameter in again:  # what the model itself keeps frozen stays so
                        parameter.requires_grad_(True)
        freeze_batch_norms(frozen_modules.values())
