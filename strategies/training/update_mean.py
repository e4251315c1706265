"""The loss of an update that takes several passes: each adds its share, and together they are the whole batch's mean.

Shares are known beforehand where each pass gives a mean (`weights`). A pass may give a sum and a count instead: what
all counts come to is known after the last, so gradients are brought to that scale then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

PAIR = 2  # a sum, and the number that it is divided by


class UpdateMean:
    """Adds up the losses of `passes` passes; `weights`: the share of each, which may be set after the first loss."""

    def __init__(self, passes: int) -> None:
        self.weights = [1.0] * passes
        self.ended = False  # whether the last pass that counts has been
        self._losses: list[Tensor] = []
        self._unit: Tensor | None = None  # what sums are divided by for the time being
        self._total: Any = 0

    def is_last(self, place: int) -> bool:
        """Say whether no pass after this one counts."""
        return not any(self.weights[place + 1 :])

    def add(self, place: int, loss: Any, term: Tensor | None) -> Tensor | None:
        """Give what to send backward for a pass, `None` where nothing counts; `term` is added to the loss."""
        if is_pair(loss):
            part = self._of_sum(loss[0], loss[1], term)
        else:
            part = loss.mean()
            part = (part if term is None else part + term) * self.weights[place]
        if not self.weights[place]:
            return None
        self.ended = self.is_last(place)
        self._losses.append(part.detach())
        return part

    def _of_sum(self, total: Tensor, count: Any, term: Tensor | None) -> Tensor:
        import torch

        count = torch.as_tensor(count, device=total.device, dtype=torch.float32).detach()
        if self._unit is None:
            self._unit = _or_one(count * len(self.weights))
        self._total = self._total + count
        return (total if term is None else total + term * count) / self._unit

    def finish(self, model: nn.Module) -> Tensor:
        """Bring gradients to the scale of the whole and give its loss, detached, ()."""
        import torch

        loss = sum(self._losses[1:], self._losses[0]) if self._losses else zero_loss(model).detach()
        if self._unit is None or len(self.weights) == 1:
            return loss
        factor = self._unit / _or_one(self._total)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        return loss * factor


def is_pair(loss: Any) -> bool:
    """Say whether a loss function gave a sum and its count."""
    import torch

    if not isinstance(loss, tuple) or len(loss) != PAIR or not isinstance(loss[0], torch.Tensor):
        return False
    scalar = isinstance(loss[1], int | float) or (isinstance(loss[1], torch.Tensor) and not loss[1].ndim)
    return not loss[0].ndim and scalar


def zero_loss(model: nn.Module) -> Tensor:
    """Give a loss of zero with gradients of zero."""
    trained = [parameter.flatten()[:1].sum() for parameter in model.parameters() if parameter.requires_grad]
    return sum(trained[1:], trained[0]) * 0


def _or_one(count: Tensor) -> Tensor:
    import torch

    return torch.where(count > 0, count, torch.ones_like(count))
