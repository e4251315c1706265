"""How a plan computes losses: batches prepared by its members, the loss function under its wrappers, pass by pass.

An update's loss is that of its whole batch, however many passes it takes: each counts by its number of examples, or by
what its mean is over (`Weighting`), and one in which nothing counts adds nothing.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, SelfCheckError, is_out_of_memory
from strategies.execution.counting import EXAMPLES
from strategies.execution.feed import Feed, MicroBatch, moved
from strategies.execution.mixed_types import naming_mixed_types
from strategies.language.rates import trained_scopes
from strategies.training.first_step_check import SelfCheck
from strategies.training.row_losses import refuse_losses_that_compare
from strategies.training.update_mean import UpdateMean, is_pair, zero_loss
from strategies.training.weighting import (
    PRECISION,
    Weighting,
    is_exact,
    looker,
    same_function,
    shares,
    without_autocast,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from strategies.execution.engine import Engine
    from strategies.language.plan import Plan
    from strategies.protocol import Context, State

    LossFunction = Callable[[nn.Module, Any], Any]


class Losses:
    """The forward and backward passes of a plan; the first ones are watched by the self-check, `check`."""

    def __init__(self, plan: Plan, engine: Engine, context: Context, state: State) -> None:
        self._plan, self._engine, self._context, self._state = plan, engine, context, state
        self.check = SelfCheck(state.model, context.layout, trained_scopes(plan.members))
        self._weightings: dict[object, Weighting] = {}  # by loss function
        self._looked_at: set[object] = set()  # loss functions that give each example's loss
        self._divided = False  # whether a part of a batch has passed

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap what computes outputs or the loss, as the plan's members want it."""
        for member in self._plan.members:
            function = member.wrap_forward(function, self._context)
        return function

    def notes(self) -> list[str]:
        """Say what there is to know of updates in several passes."""
        from torch.nn.modules.batchnorm import _BatchNorm

        used = dict.fromkeys(weighting.used for weighting in self._weightings.values())
        told = [f"micro-batches count by {words}" for words in used if words != EXAMPLES]
        if self._divided and any(isinstance(m, _BatchNorm) and m.training for m in self._state.model.modules()):
            told.append("batch norms see one micro-batch at a time, so an update is not exactly that of its batch")
        return told

    def forward_backward(self, loss_fn: LossFunction, feed: Feed, max_size: int) -> Tensor:
        """Pass all examples forward and backward, at most `max_size` at a time; give the mean loss, detached."""
        parts = feed.micro_batches(max_size)
        mean = UpdateMean(len(parts))
        for place, part in enumerate(parts):
            if not mean.weights[place]:
                continue
            with nullcontext() if mean.is_last(place) else self._engine.no_sync():
                loss = self._loss_of_part(loss_fn, feed, part)
                if place == 0 and not is_pair(loss):
                    before = self._versions()
                    mean.weights = self._weights(loss_fn, feed, parts, loss)
                    if before != self._versions():  # a model that changes its weights for evaluation, and back
                        loss = self._loss_of_part(loss_fn, feed, part)
                loss = mean.add(place, loss, self._extra_loss())
                if loss is not None:
                    self._backward(loss)
        if not mean.ended:  # nothing counted in the last pass, or in any
            self._engine.backward(zero_loss(self._state.model))
        return mean.finish(self._state.model)

    def _versions(self) -> list[int]:
        """Count how often each parameter was written to: a graph of before cannot be gone through afterwards."""
        return [parameter._version for parameter in self._state.model.parameters()]  # noqa: SLF001

    def _backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        word = next((member.name for member in self._plan.members if PRECISION in member.slots), None)
        with naming_mixed_types(word) if word else nullcontext():
            self._engine.backward(loss)

    def per_example(self, loss_fn: LossFunction, feed: Feed) -> Tensor:
        """Give each example's loss, (n,), without gradients."""
        import torch

        if feed.problem:
            raise PlanError(f"{self._plan}: {feed.problem}")
        self._look_at_rows(loss_fn, feed)
        with torch.no_grad():
            return torch.cat([self._compute(loss_fn, part) for part in feed.collated])

    def _loss_of_part(self, loss_fn: LossFunction, feed: Feed, part: MicroBatch) -> Any:
        """Compute and check the loss of a part; rows that are no examples show when some of them pass alone."""
        try:
            loss = self._watched_loss(loss_fn, feed, part)
        except Exception as error:
            if self._divided or feed.rows is None or part.size == len(feed) or is_out_of_memory(error):
                raise
            raise self._not_divided(feed, part, error) from error
        self._divided = self._divided or part.size < len(feed)
        return loss

    def _watched_loss(self, loss_fn: LossFunction, feed: Feed, part: MicroBatch) -> Any:
        with self.check.watching():
            loss = self._compute(loss_fn, part)
        number = loss[0] if is_pair(loss) else loss.mean() if feed.problem and _is_row(loss) else loss
        self.check.check_loss(number, part.size)
        return loss

    def _weights(self, loss_fn: LossFunction, feed: Feed, parts: Sequence[MicroBatch], loss: Tensor) -> list[float]:
        """Give the share of each part in the loss of all, of which the first has this `loss`."""
        if loss.ndim and len(parts) > 1:
            self._look_at_rows(loss_fn, feed)
        if loss.ndim or len(parts) == 1:
            return [part.size / len(feed) for part in parts]
        state, exact = self._state, is_exact(self._state.model, self._plan.members)
        weighting = self._weightings.setdefault(same_function(loss_fn), Weighting(state.model, exact=exact))
        looked_at = without_autocast(loss_fn, state.device) if exact else loss_fn
        look = looker(state.model, state.device, partial(self._compute, looked_at))
        try:
            return shares(weighting.counts(feed, parts, look))
        except PlanError as error:
            raise PlanError(f"{self._plan}: {error}") from None
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise self._not_divided(feed, parts[0], error) from error

    def _look_at_rows(self, loss_fn: LossFunction, feed: Feed) -> None:
        """Look once at a loss function that gives each example's loss: a `PlanError` where it compares examples."""
        state, exact, known = self._state, is_exact(self._state.model, self._plan.members), same_function(loss_fn)
        if known in self._looked_at:
            return
        compute = partial(self._compute, without_autocast(loss_fn, state.device) if exact else loss_fn)
        try:
            if refuse_losses_that_compare(feed, state.model, state.device, compute, exact=exact):
                self._looked_at.add(known)
        except PlanError as error:
            raise PlanError(f"{self._plan}: {error}") from None

    def _not_divided(self, feed: Feed, part: MicroBatch, error: Exception) -> Exception:
        """Say that a part of the batch does not pass alone; what is said already stays as it is."""
        if isinstance(error, PlanError | SelfCheckError):
            return error
        first = (str(error).splitlines() or [""])[0]
        return PlanError(
            f"{self._plan}: loss_fn fails on {part.size} of the batch's {len(feed)} rows ({type(error).__name__}: "
            f"{first}): if rows are no examples, take batches from tuned.loader(…), or pass the whole batch at once"
        )

    def _extra_loss(self) -> Tensor | None:
        """Sum what members add to the loss."""
        given = [member.extra_loss(self._state) for member in self._plan.members]
        terms = [term for term in given if term is not None]
        return sum(terms[1:], terms[0]) if terms else None

    def _compute(self, loss_fn: LossFunction, part: MicroBatch) -> Any:
        """Call the loss function on a part, moved to the device and prepared by the members."""
        state = self._state
        batch = moved(part.batch, state.device)
        for member in self._plan.members:
            batch = member.prepare_batch(batch, state)
        state.keys = part.keys
        try:
            loss = self.wrap(loss_fn)(state.model, batch)
        finally:
            state.keys = {}
        if any(member.needs_losses for member in self._plan.members) and (is_pair(loss) or loss.ndim == 0):
            raise PlanError(f"{self._plan}: loss_fn must return each example's loss, of shape (n,), not their mean")
        return loss


def _is_row(loss: Any) -> bool:
    import torch

    return isinstance(loss, torch.Tensor) and loss.ndim == 1
