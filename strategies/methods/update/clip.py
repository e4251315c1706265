"""clip — limit gradients in another way than to a total norm of 1.

What: `norm` scales all gradients down together when their total norm is larger; `value` cuts each entry to ±value;
`clip(norm=None)` alone leaves gradients as they are. Every plan without this word has norm=1.
Why it helps: one bad batch cannot throw the weights far. Optimizers that divide by the size of the gradient (Adam,
Lion, Muon) need it less, since there a scale common to many steps cancels out.
What it costs: one pass over all gradients. When not to use it: the loss curve is smooth; look at it first.
Paper: Pascanu et al., On the difficulty of training recurrent neural networks, 2013, https://arxiv.org/abs/1211.5063
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Rate
from strategies.protocol import CLIPPING, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Clip(Strategy):
    """Scale gradients to a total norm of at most `norm`, after cutting each entry to ±`value`; `None` leaves them."""

    name: ClassVar[str] = "clip"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({CLIPPING})
    trial: ClassVar[Mapping[str, Any]] = {"norm": 0.01, "value": 1e-4}

    norm: Rate | None = 0.1
    value: Rate | None = None

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any] | str:
        """Let the other loop limit the norm."""
        del facts
        others = (
            "value=… is not among TrainingArguments: take norm=… (max_grad_norm); in an Accelerate loop leave clip out "
            "and call accelerator.clip_grad_value_"
        )
        return {"max_norm": self.norm} if self.value is None else others

    def clipping(self, clip: Callable[[Sequence[Tensor]], object]) -> Callable[[Sequence[Tensor]], object]:
        """Take the place of the usual limit."""
        del clip
        return self._clip

    def _clip(self, parameters: Sequence[Tensor]) -> None:
        from torch.nn.utils import clip_grad_norm_, clip_grad_value_

        if self.value is not None:
            clip_grad_value_(parameters, self.value)
        if self.norm is not None:
            clip_grad_norm_(parameters, self.norm)
