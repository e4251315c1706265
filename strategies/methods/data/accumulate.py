"""accumulate — divide each update into smaller passes and add up their gradients.

What: an update's examples go forward and backward in `n` micro-batches, one after another; the optimizer steps once, on
the gradient of the whole. The batch size of the plan stays what it is.
Why it helps: activations, most of the memory of small models, are those of one micro-batch: about 1/n.
What it costs: products of smaller matrices, so fewer examples per second where the device was not full before; with a
quantised base each pass unpacks the weights again. When not to use it: the whole batch fits.
Paper: Goyal et al., Accurate, Large Minibatch SGD, 2017, https://arxiv.org/abs/1706.02677 (what a large batch needs);
adding up gradients is older than any paper on it.

Exact for each example's loss, for means over examples, and for means over labels or tokens that count, where each part
counts by its own number of them and one without any adds nothing: a few examples' loss is compared with their halves'
(in eval mode, without gradients) until it is clear which mean it is. Other losses, contrastive ones say, are refused.
Not exact with batch norms (each micro-batch has its own statistics, which `describe()` says) and in the noise of
dropout. Batches with something shared between examples are divided before collating, which `tuned.loader` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count
from strategies.protocol import MICRO_BATCHES, Kind, State, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Accumulate(Strategy):
    """`n` micro-batches for each update."""

    name: ClassVar[str] = "accumulate"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({MICRO_BATCHES})
    needs_items: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"n": 3}

    n: Count = 4

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give the number of micro-batches."""
        del device
        return {"grad_accumulation": self.n}

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any]:
        """Let the other loop divide."""
        del facts
        return {"micro_batches": self.n}

    def run_micro_batches(self, run: Callable[[int], Tensor], size: int, state: State) -> Tensor:
        """Divide evenly; the last micro-batch may be smaller."""
        del state
        return run(-(-size // self.n))
