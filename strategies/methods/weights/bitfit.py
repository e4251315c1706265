"""bitfit — train the bias vectors only.

What: every bias of the scope trains (also the fused ones of `nn.MultiheadAttention` and of LSTMs); all weight matrices,
embeddings and the scales of norms rest. Nothing is added, so inference costs what it did.
Why it helps: about 0.1 % of the weights train, with optimizer state for no more; activations need not be kept for
the weight gradients of frozen matrices; a file of a few hundred KB per task.
What it costs: the graph still runs through all layers, so a step saves far less time than `freeze`; biases shift
features but cannot mix them. When not to use it: large data sets or distant tasks (full or low-rank updates do
better there), and models built without biases, where it is refused.
Paper: Ben Zaken, Ravfogel and Goldberg, BitFit, 2021, https://arxiv.org/abs/2106.10199

PEFT has biases only as an option of other methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.errors import PlanError
from strategies.layout import is_within
from strategies.options import Rate
from strategies.protocol import FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.freezing import is_vector, train_only

if TYPE_CHECKING:
    from torch import nn


def bias_vectors(model: nn.Module) -> list[str]:
    """Name the bias vectors of a model: parameters with `bias` in their own name and one dimension that counts.

    Fused and odd ones are among them: `in_proj_bias` and `bias_k` of `nn.MultiheadAttention`, `bias_hh_l0` of an LSTM.
    """
    return [name for name, p in model.named_parameters() if "bias" in name.rpartition(".")[2] and is_vector(p)]


@final
@dataclass(frozen=True, kw_only=True)
class BitFit(Strategy):
    """The bias vectors of `scope` train with `lr`."""

    name: ClassVar[str] = "bitfit"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})

    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze all of the scope but its biases; quantised layers have frozen theirs, so they are switched on."""
        names = bias_vectors(model)
        for label, roots in context.layout.groups(model, self.scope).items():
            if not any(is_within(name, roots) for name in names):
                raise PlanError(f"bitfit: {label!r} has no bias vectors; use lora, or layernorm where it has norms")
        train_only(model, context, self.scope, names)
