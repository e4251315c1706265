"""linear_probe — train the head alone on features that never change.

What: only the head trains. Everything else, a fusion between towers too, rests in evaluation mode, so that dropout is
off and the same input gives the same features in every epoch. `freeze` differs: fusion trains there, and the towers'
dropout stays on.
Why it helps: the usual measure of how good pretrained features are; the fastest and smallest training there is, and
the features could be computed once.
What it costs: nothing adapts but one layer. When not to use it: the fusion is new, since it would stay random
(`freeze` is the better baseline then), or the task is far from what the towers were pretrained on.
Paper: Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016,
https://arxiv.org/abs/1610.01644
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.layout import is_within
from strategies.options import Rate
from strategies.protocol import FROZEN, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.freezing import freeze_parameters, keep_in_eval

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class LinearProbe(Strategy):
    """Nothing but the head trains, with `head_lr`."""

    name: ClassVar[str] = "linear_probe"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN, FROZEN_BASE})

    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze all parameters outside the head, and keep all modules that neither are nor hold it in eval mode."""
        heads = context.layout.scopes["head"]
        freeze_parameters(model, [name for name, _ in model.named_parameters() if not is_within(name, heads)])
        for name, module in model.named_modules():
            holds_head = not name or any(is_within(head, (name,)) for head in heads)
            if not holds_head and not is_within(name, heads):
                keep_in_eval(module)
