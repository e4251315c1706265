"""schedule_free — AdamW with an average of the weights in place of a schedule.

What: AdamWScheduleFree. Gradients are taken at a point between a fast sequence of weights and their running average;
the average is what is evaluated and saved. After a warm-up over 6 % of the steps the rate is constant: no schedule is
needed.
Why it helps: the average is good at every moment, so the length of the training need not be known, and evaluations on
the way show what a run that ended there would have given. As much optimizer state as AdamW.
What it costs: a copy of the weights that train during each evaluation, so that training goes on to the bit as without
it. Batch norms gather their statistics at the point of the gradients, not of the average. When not to use it: the
length is known and a schedule has been tuned; or beside adalora, whose budget the average exceeds (it holds values
that training has set to zero).
Paper: Defazio et al., The Road Less Scheduled, 2024, https://arxiv.org/abs/2405.15682
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.execution.optimizer import WARMUP_FRACTION, WARMUP_STEPS_WITHOUT_END
from strategies.options import Rate, Share
from strategies.protocol import AVERAGED, OPTIMIZER, SCHEDULE, Kind, State, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True)
class ScheduleFree(Strategy):
    """AdamW without a schedule: averaged weights are evaluated and saved."""

    name: ClassVar[str] = "schedule_free"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER, SCHEDULE, AVERAGED})
    packages: ClassVar[tuple[str, ...]] = ("schedulefree",)

    beta1: Share = 0.9
    lr_scale: Rate = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.beta1 > 0, "beta1 should be positive: the average is found again by dividing by it")

    def lr_multiplier(self, step: int, total_steps: int | None) -> float | None:
        """Warm up linearly, then stay."""
        warmup = WARMUP_STEPS_WITHOUT_END if total_steps is None else max(1, round(WARMUP_FRACTION * total_steps))
        return min(1.0, (step + 1) / warmup)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take schedule-free AdamW, ready to train."""
        del make

        def schedule_free(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            import schedulefree

            optimizer = schedulefree.AdamWScheduleFree(groups, betas=(self.beta1, 0.999))
            optimizer.train()
            made: torch.optim.Optimizer = optimizer
            return made

        return schedule_free

    def evaluating(self, state: State) -> ExitStack:
        """Put the average in place of the weights; leaving puts the very same weights back."""
        optimizer: Any = state.optimizer
        groups = [group for group in optimizer.param_groups if group["train_mode"]]
        kept = [
            (p, p.detach().clone()) for group in groups for p in group["params"] if "z" in optimizer.state.get(p, ())
        ]
        with ExitStack() as stack:
            stack.callback(_restore, groups, kept)
            optimizer.eval()
            return stack.pop_all()


def _restore(groups: list[dict[str, Any]], kept: list[tuple[Tensor, Tensor]]) -> None:
    import torch

    with torch.no_grad():
        for parameter, weights in kept:
            parameter.copy_(weights)
    for group in groups:
        group["train_mode"] = True
