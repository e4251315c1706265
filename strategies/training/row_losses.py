"""Whether each example's loss is its own: what is divided into micro-batches must not depend on who else is there.

A loss function that gives one loss for each example, (n,), may still compare examples (contrastive losses, whose
examples are each other's negatives). That shows when a few of them pass together and in two halves, in evaluation
mode. One look of three that agrees is enough: a router may send a word elsewhere after rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.errors import PlanError, is_out_of_memory
from strategies.execution.random_state import reseed
from strategies.training.weighting import EXACT, ROUNDED, SPREAD, still

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn

    from strategies.execution.feed import Feed, MicroBatch

    Compute = Callable[[MicroBatch], Tensor]

HALF = 2  # examples in each half, at most
DEPENDS = (
    "each example's loss depends on the others in its batch ({:.4g} in a batch of {}, {:.4g} in one of {}), so "
    "dividing the batch would train on another loss: leave out what divides it and take batches that fit whole "
    "(checkpointing and amp make room), or give losses that do not compare examples"
)


def refuse_losses_that_compare(
    feed: Feed, model: nn.Module, device: torch.device, compute: Compute, *, exact: bool
) -> bool:
    """Refuse losses, (n,), that depend on who else is in the batch, with a `PlanError`; say whether a look was had.

    None is had where memory runs out. Losses that exist in training mode only are left as they are. exact: losses are
    computed in 32 bits; fewer leave more room for rounding.
    """
    half = min(HALF, len(feed) // 2)
    room = len(feed) - 2 * half
    for start in sorted({0, room // 2, room}) if half else ():
        places = range(start, start + 2 * half)
        try:
            with still(model, device):
                rows = _together_and_apart(feed, places, half, compute)
        except Exception as error:  # noqa: BLE001 - the training pass that follows says what is wrong, if it is
            return not is_out_of_memory(error)
        together, again, apart = rows
        if together.shape != apart.shape or not bool(together.isfinite().all()):
            return True
        allowed = (EXACT if exact else ROUNDED) * together.abs().max() + SPREAD * (together - again).abs().max()
        if bool(((together - apart).abs() <= allowed).all()):
            return True
        worst = int((together - apart).abs().argmax())
        told = float(together[worst]), 2 * half, float(apart[worst]), half
    if half:
        raise PlanError(DEPENDS.format(*told))
    return False


def _together_and_apart(
    feed: Feed, places: Sequence[int], half: int, compute: Compute
) -> tuple[Tensor, Tensor, Tensor]:
    """Give the losses of a few examples in one batch, the same with other random numbers, and in halves, (n,)."""
    import torch

    def losses(chosen: Sequence[int], seed: int = 0) -> Tensor:
        reseed(seed)
        return compute(feed.batch_of(chosen)).float()

    return losses(places), losses(places, seed=1), torch.cat([losses(places[:half]), losses(places[half:])])
