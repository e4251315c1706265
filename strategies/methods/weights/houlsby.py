"""houlsby — freeze the weights and train small bottleneck networks inside every transformer layer.

What: y + U·gelu(D·y) behind the last layer of each attention and of each feed-forward part, D to `r` features and U
back; U starts at zero, so training starts at the pretrained model. A fall-back puts them behind every linear layer or
(as 1×1 convolutions) every convolution of models without such roles.
Why it helps: the first adapters for transformers; non-linear, yet only 2.1 % of BERT-base train at r = 64.
What it costs: two small layers in sequence in every block, also at inference, since a non-linear branch cannot be
merged. When not to use it: the model must not get slower (lora, which merges), or the file must be tiny (bitfit).
Paper: Houlsby et al., Parameter-Efficient Transfer Learning for NLP, 2019, https://arxiv.org/abs/1902.00751

Own code: no library offers it for transformers 5. The paper trains the layer norms as well; here they rest. The paper
starts D and U near zero; an exact zero in U alone makes the start exact and trains both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.options import Count, Names, Rate
from strategies.protocol import FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import chosen_layers, freeze_scope
from strategies.structure.bottlenecks import wrap_serial
from strategies.structure.linear_layers import conv1d_to_linear
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Houlsby(Strategy):
    """Bottlenecks of `r` features behind the layers of `scope` with the given `roles` (default: output and down)."""

    name: ClassVar[str] = "houlsby"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})

    r: Count = 64
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and put a bottleneck behind each chosen layer."""
        import torch

        chosen = chosen_layers(self, model, context, ("output", "down"), convolutions=True)
        freeze_scope(model, context, self.scope)
        torch.manual_seed(context.seed)
        for name in [name for names in chosen.values() for name in names]:
            conv1d_to_linear(model, name)
            wrap_serial(model, name, self.r)
