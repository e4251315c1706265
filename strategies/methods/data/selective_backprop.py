"""selective_backprop — train on the examples of a batch that the model finds hard.

What: between the shares `start` and `end` of the training, in all but every `interrupt`-th update, a forward pass
without gradients gives each example's loss; a share `keep` of them is drawn, each with a probability that rises as its
percentile^(1/`keep` − 1), and only these are trained on. `interrupt=0` leaves no update out.
Why it helps: the backward pass, two thirds of an update, is done for the examples that still teach something.
What it costs: one more forward pass of the whole batch, so that of a selective update at most 1 − (1 + 3·`keep`)/3 is
saved: a sixth at keep=0.5, nothing from 2/3 on. Since only some updates are selective, the whole training is shorter by
a thirtieth at the defaults. The order of the losses is read back to the host, which waits for the device; batch norms
count the batch twice; examples with wrong labels are hard, too, and chosen often. Gradients are those of the chosen,
not of the data.
When not to use it: labels are noisy, the forward pass dominates (frozen towers), or examples share their costly part
(several questions about one picture).
Paper: Jiang et al., Accelerating Deep Learning by Focusing on the Biggest Losers, 2019,
https://arxiv.org/abs/1910.00762; the schedule is that of MosaicML's Composer,
https://docs.mosaicml.com/projects/composer/en/stable/method_cards/selective_backprop.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.options import Natural, Range, Share
from strategies.protocol import Context, Kind, State, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from strategies.execution.feed import Feed

KeepFraction = Annotated[float, Range("above 0, below 1", lambda value: 0 < value < 1)]
EndFraction = Annotated[float, Range("above 0, up to 1", lambda value: 0 < value <= 1)]


@final
@dataclass(frozen=True, kw_only=True)
class SelectiveBackprop(Strategy):
    """Between `start` and `end`, but for every `interrupt`-th update, train on the hardest share `keep` of a batch."""

    name: ClassVar[str] = "selective_backprop"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({"choice of examples"})
    needs_items: ClassVar[bool] = True
    needs_losses: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"start": 0.0}

    keep: KeepFraction = 0.5
    start: Share = 0.5
    end: EndFraction = 0.9
    interrupt: Natural = 2

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return "it chooses examples before the update: use tuned.loader and tuned.step"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.start < self.end, f"start={self.start} should be less than end={self.end}")
        self.require(self.interrupt != 1, "interrupt=1 would interrupt every update; 0 interrupts none")

    def transform(self, model: nn.Module, context: Context) -> None:
        """Need the length of the training; the model stays as it is."""
        del model
        if context.total_steps is None:
            raise PlanError("selective_backprop: needs the length of the training: give total_steps to apply")

    def selects(self, step: int, total_steps: int) -> bool:
        """Say whether update number `step` (from 0) is a selective one."""
        interrupted = self.interrupt and (step + 1) % self.interrupt == 0
        return self.start <= step / total_steps < self.end and not interrupted

    def select_examples(self, feed: Feed, losses: Callable[[Feed], Tensor], state: State) -> Feed:
        """Draw examples by the percentiles of their losses."""
        assert state.total_steps is not None
        count = math.ceil(self.keep * len(feed))
        if count == len(feed) or not self.selects(state.step, state.total_steps):
            return feed
        return feed.subset(sorted(draw(losses(feed), count, self.keep)))


def draw(losses: Tensor, count: int, keep: float) -> list[int]:
    """Draw the positions of `count` examples without replacement; torch's own random stream decides."""
    import torch

    percentiles = (torch.arange(len(losses)) + 0.5) / len(losses)
    order: list[int] = losses.argsort().tolist()
    ranks = torch.multinomial(percentiles ** (1 / keep - 1), count).tolist()
    return [order[rank] for rank in ranks]
