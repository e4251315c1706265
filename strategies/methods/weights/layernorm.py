"""layernorm — train the scales and biases of the normalisation layers only.

What: the weight and bias of every LayerNorm, RMSNorm, GroupNorm and batch norm of the scope train; all else is frozen.
A layer is a norm if its class is called so and holds vectors, so a model's own kinds count, too.
Batch norms that train also go on updating their statistics, as in full fine-tuning.
Why it helps: well under 0.1 % of the weights train (0.04 % of BERT-base), with optimizer state for no more; nothing
is added, so inference costs what it did.
What it costs: the graph still runs through all layers, so steps get little faster; features are rescaled, never
mixed. When not to use it: the task needs new features, or the model has no norms (refused).
Paper: Qi et al., Parameter-Efficient Tuning on Layer Normalization, 2022, https://arxiv.org/abs/2211.08682; on
multi-modal models: Zhao et al., Tuning LayerNorm in Attention, 2023, https://arxiv.org/abs/2312.11420

PEFT's LN_TUNING trains the same parameters of the models it has a table for, through a copy of each layer. This
finds norms by class, so that it works on any model, and needs no copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.errors import PlanError
from strategies.layout import is_within
from strategies.options import Rate
from strategies.protocol import FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.freezing import train_only
from strategies.structure.norms import is_norm

if TYPE_CHECKING:
    from torch import nn


def norm_parameters(model: nn.Module) -> list[str]:
    """Name the weights and biases of the normalisation layers of a model."""
    return [
        f"{name}.{own}".lstrip(".")
        for name, module in model.named_modules()
        if is_norm(module, name)
        for own, _ in module.named_parameters(recurse=False)
    ]


@final
@dataclass(frozen=True, kw_only=True)
class LayerNormTuning(Strategy):
    """The normalisation layers of `scope` train with `lr`."""

    name: ClassVar[str] = "layernorm"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})

    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze all of the scope but its norms."""
        names = norm_parameters(model)
        for label, roots in context.layout.groups(model, self.scope).items():
            if not any(is_within(name, roots) for name in names):
                raise PlanError(
                    f"layernorm: {label!r} has no normalisation layer with weights; take bitfit where it has biases, "
                    "or lora where it has linear layers"
                )
        train_only(model, context, self.scope, names)
