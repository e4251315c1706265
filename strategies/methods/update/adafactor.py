"""adafactor — a row and a column in place of a matrix of second moments, and no first moment.

What: torch.optim.Adafactor for matrices of at least `min_rows` rows and columns: the second moment of a weight is the
product of its row's and its column's average. AdamW for all else (vectors, convolutions, thin matrices, where the
factors save nothing). torch's rate is relative to a matrix's root mean square, so matrices get `scale` × the plan's
rate, and weight decay is divided by `scale`.
Why it helps: almost no optimizer state: m + n values for a matrix of m × n instead of 2·m·n.
What it costs: without a first moment the updates are noisier; `scale` fits one size of weights (the default was the
best of five when fine-tuning the suite's own model for 250 updates; a small network from scratch wanted 2–4 times as
much); torch's code reads two norms per matrix back from the device in each update, which a GPU waits for. When not to
use it: few weights train (adapters), or the steps are short and the GPU fast.
Paper: Shazeer and Stern, Adafactor, 2018, https://arxiv.org/abs/1804.04235
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.methods.update.optimizer_pair import is_matrix, pair_optimizers, split_groups
from strategies.options import Count, Rate
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Adafactor(Strategy):
    """Adafactor for matrices, AdamW for the rest."""

    name: ClassVar[str] = "adafactor"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})

    min_rows: Count = 16
    scale: Rate = 10.0
    lr_scale: Rate = 1.0

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Split the matrices off, with rates relative to their size and decay as strong as with AdamW."""
        del model, context
        why = f"adafactor: no matrix with {self.min_rows} or more rows and columns trains; leave it out"
        split = split_groups(groups, lambda parameter: is_matrix(parameter, self.min_rows), why)
        for group in split:
            if group["own"]:
                group["lr"] *= self.scale
                group["weight_decay"] /= self.scale
        return split

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take both."""
        from torch.optim import Adafactor as TorchAdafactor

        return lambda groups: pair_optimizers(groups, TorchAdafactor, make)
