"""How a plan computes losses: batches prepared by its members, the loss function under its wrappers, pass by pass."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.feed import Feed, MicroBatch, map_tensors
from strategies.language.rates import trained_scopes
from strategies.training.first_step_check import SelfCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from strategies.execution.engine import Engine
    from strategies.language.plan import Plan
    from strategies.protocol import Context, State

    LossFunction = Callable[[nn.Module, Any], Tensor]


class Losses:
    """The forward and backward passes of a plan; the first ones are watched by the self-check, `check`."""

    def __init__(self, plan: Plan, engine: Engine, context: Context, state: State) -> None:
        self._plan, self._engine, self._context, self._state = plan, engine, context, state
        self.check = SelfCheck(state.model, context.layout, trained_scopes(plan.members))

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what computes outputs or the loss, as the plan's members want it."""
        for member in self._plan.members:
            function = member.wrap_forward(function, self._context)
        return function

    def forward_backward(self, loss_fn: LossFunction, feed: Feed, max_size: int) -> Tensor:
        """Pass all examples forward and backward, at most `max_size` at a time; give the mean loss, detached."""
        parts = feed.micro_batches(max_size)
        losses = []
        for part in parts:
            last = part is parts[-1]
            with nullcontext() if last else self._engine.no_sync():
                loss = self._mean_loss(loss_fn, part) * (part.size / len(feed))
                self._engine.backward(loss)
            losses.append(loss.detach())
        return sum(losses[1:], losses[0])

    def per_example(self, loss_fn: LossFunction, feed: Feed) -> Tensor:
        """Give each example's loss, (n,), without gradients."""
        import torch

        with torch.no_grad():
            return torch.cat([self._compute(loss_fn, part) for part in feed.collated])

    def _mean_loss(self, loss_fn: LossFunction, part: MicroBatch) -> Tensor:
        """Compute the mean loss of a part, and add what members add."""
        with self.check.watching():
            loss = self._compute(loss_fn, part)
        self.check.check_loss(loss, part.size)
        loss = loss.mean()
        for member in self._plan.members:
            term = member.extra_loss(self._state)
            loss = loss if term is None else loss + term
        return loss

    def _compute(self, loss_fn: LossFunction, part: MicroBatch) -> Tensor:
        """Call the loss function on a part, moved to the device and prepared by the members."""
        state = self._state
        batch = map_tensors(part.batch, lambda tensor: tensor.to(state.device, non_blocking=True))
        for member in self._plan.members:
            batch = member.prepare_batch(batch, state)
        state.keys = part.keys
        try:
            loss: Tensor = self.wrap(loss_fn)(state.model, batch)
        finally:
            state.keys = {}
        if any(member.needs_losses for member in self._plan.members) and loss.ndim == 0:
            raise PlanError(f"{self._plan}: loss_fn must return each example's loss, of shape (n,), not their mean")
        return loss
