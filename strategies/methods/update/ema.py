"""ema — evaluate and save a moving average of the weights.

What: after each update a shadow of every weight that trains moves towards it: shadow ← d·shadow + (1 − d)·weight, with
d = min(`decay`, (1 + t)/(10 + t)) in update t, so that a short run is no average of its start. Evaluation, saved files
and merged models have the shadows; training goes on with the weights themselves, to the bit as without this.
Why it helps: the average cancels the noise of single updates, much as a falling rate does, and is good at every moment
of a run with a constant rate.
What it costs: a copy of the weights that train (in float32 where they have 16 bits), one pass over both per update, and
one more copy during an evaluation. Batch norms keep the statistics of the weights in training, not of their average.
When not to use it: the schedule ends at zero (the usual one does, and leaves less noise to average away), or the run
has few updates beyond 1/(1 − `decay`).
Paper: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992,
https://doi.org/10.1137/0330046; Tarvainen and Valpola, Mean teachers, 2017, https://arxiv.org/abs/1703.01780

Weights that rest for a while (lisa, progressive_freezing) are averaged on: their shadows catch up with them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, final

from strategies.options import Range
from strategies.protocol import AVERAGED, Kind, State, Strategy

if TYPE_CHECKING:
    from torch import Tensor

Decay = Annotated[float, Range("between 0 and 1", lambda value: 0 < value < 1)]
WARMUP = 10  # how slowly the decay rises in the first updates


@dataclass
class Averages:
    """The shadows of everything an optimizer holds, in its order, and the number of updates they have seen."""

    weights: list[Tensor]
    shadows: list[Tensor]
    updates: int = 0
    active: bool = False

    def update(self, decay: float) -> None:
        """Move each shadow towards its weight."""
        import torch

        self.updates += 1
        decay = min(decay, (1 + self.updates) / (WARMUP + self.updates))
        pairs = list(zip(self.shadows, self.weights, strict=True))
        alike = [pair for pair in pairs if pair[0].dtype == pair[1].dtype]
        with torch.no_grad():
            if alike:
                torch._foreach_lerp_([shadow for shadow, _ in alike], [weight for _, weight in alike], 1 - decay)
            for shadow, weight in pairs:
                if shadow.dtype != weight.dtype:  # one by one, so that one weight at a time is there in 32 bits
                    shadow.lerp_(weight.to(shadow.dtype), 1 - decay)

    def swapped_in(self) -> ExitStack:
        """Put the shadows in place of what is there; leaving puts the very same values back. Within itself: nothing."""
        with ExitStack() as stack:
            if not self.active:
                stack.callback(self._restore, [weight.detach().clone() for weight in self.weights])
                self.active = True
                _copy(self.weights, self.shadows)
            return stack.pop_all()

    def _restore(self, kept: list[Tensor]) -> None:
        _copy(self.weights, kept)
        self.active = False


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    import torch

    with torch.no_grad():
        for target, source in zip(targets, sources, strict=True):
            target.copy_(source)


def shadow_of(weight: Tensor) -> Tensor:
    """Copy a weight, 16 bits as 32: a thousandth of a difference would round to nothing in 16."""
    import torch

    return weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)


@final
@dataclass(frozen=True, kw_only=True)
class Ema(Strategy):
    """Evaluate and save an exponential moving average of everything that trains."""

    name: ClassVar[str] = "ema"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({AVERAGED})

    decay: Decay = 0.999

    def after_update(self, state: State) -> None:
        """Start from the weights after the first update, then follow them."""
        if self not in state.member_state:
            weights = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
            state.member_state[self] = Averages(weights, [shadow_of(weight) for weight in weights])
            return
        state.member_state[self].update(self.decay)

    def state_dict(self, state: State) -> Any:
        """Give the shadows and their age."""
        averages: Averages | None = state.member_state.get(self)
        return averages and {"shadows": averages.shadows, "updates": averages.updates}

    def load_state_dict(self, state: State, saved: Any) -> None:
        """Go on with these shadows."""
        if saved:
            weights = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
            shadows = [shadow.to(state.device) for shadow in saved["shadows"]]
            state.member_state[self] = Averages(weights, shadows, saved["updates"])

    def evaluating(self, state: State) -> ExitStack:
        """Show the averages."""
        averages: Averages | None = state.member_state.get(self)
        return averages.swapped_in() if averages else ExitStack()
