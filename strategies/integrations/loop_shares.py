"""Micro-batches in the loops of others: what those add up becomes the loss of the update's whole batch.

A loop divides by the number of micro-batches, as if each counted alike. Trainer counts the labels of all of them
beforehand where there are any, and hands that number to the model (`NUM_ITEMS`): a mean over them is multiplied by its
share of them. Other losses keep their values, and their gradients are scaled by what each is a mean over (`Weighting`);
what that comes to in an update is known with its last micro-batch, where the gradients so far are scaled once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from strategies.execution.counting import LEFT_OUT, labels_counted
from strategies.execution.feed import MicroBatch, as_feed
from strategies.training.update_mean import zero_loss
from strategies.training.weighting import Weighting, is_exact, looker, without_autocast

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from strategies.training.tuned import Tuned

NUM_ITEMS = "num_items_in_batch"


class LoopShares:
    """Scales the losses that a model computes in a loop; `several`: an update has more than one micro-batch."""

    def __init__(self, tuned: Tuned, *, several: bool, processes: int) -> None:
        self._tuned, self._several, self._processes = tuned, several, processes
        self._weighting = Weighting(tuned.model, exact=is_exact(tuned.model, tuned.plan.members))
        self._counts: list[float] = []  # of the micro-batches of the update under way

    def end_update(self) -> None:
        """Begin to count anew."""
        self._counts.clear()

    def of_evaluation(self, outputs: Any, options: Mapping[str, Any], total: Any) -> Any:
        """Give outputs with the share of a batch's loss that Trainer adds up over processes."""
        loss = loss_in(outputs)
        if loss is None or total is None or self._processes == 1 or "labels" not in options:
            return outputs
        return with_loss(outputs, loss * (self._labels(options) / total))

    def of_training(self, outputs: Any, compute: Callable[..., Any], options: Mapping[str, Any], total: Any) -> Any:
        """Give outputs whose loss is a share of the update's; `compute(**options)` computes them anew.

        `PlanError` where the mean of micro-batches is not that of their batch, whatever they count by.
        """
        loss = loss_in(outputs)
        by_labels = total is not None and "labels" in options
        alone = not self._several and not (by_labels and self._processes > 1)
        if loss is None or loss.ndim or alone or NUM_ITEMS in options:  # whoever counts items shares the loss already
            return outputs
        ways = self._ways(compute, options)
        share = 1.0
        if by_labels:
            own = self._labels(options)
            if next(iter(ways), None) == self._counted_by_trainer(options):
                return with_loss(outputs, loss * (own / total) if own else zero_loss(self._tuned.model))
            share = float(own / total) or share
        count = sum(next(iter(ways.values()), [1.0]))
        loss = loss * share if count else zero_loss(self._tuned.model)
        self._scale_gradients(loss, count, share, adds_up=by_labels)
        return with_loss(outputs, loss)

    def _scale_gradients(self, loss: Tensor, count: float, share: float, *, adds_up: bool) -> None:
        """Scale what a loss, multiplied by `share`, sends back; at an update's end what those before it left, too.

        `adds_up`: the loop adds losses up and divides by nothing.
        """
        from accelerate.state import GradientState

        self._counts.append(count)
        unit = next((number for number in self._counts if number), 1.0)
        factor = count / unit / share
        if GradientState().sync_gradients and sum(self._counts):
            total = sum(self._counts)
            whole = total * self._processes if adds_up else total / len(self._counts)
            factor *= unit / whole
            if whole != unit:
                for parameter in self._tuned.model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.mul_(unit / whole)
        if factor != 1:
            loss.register_hook(lambda gradient: gradient * factor)

    def _ways(self, compute: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, list[float]]:
        """Give what the model's loss may be a mean over: how much both halves of a micro-batch count."""
        feed = as_feed(dict(options))
        likely = self._weighting.likely(feed.micro_batches(len(feed))[0])
        if feed.problem or len(feed) == 1:
            return likely

        def loss_of(part: MicroBatch) -> Tensor:
            loss = loss_in(run(part.batch))
            assert loss is not None
            return loss

        device = self._tuned.device
        run = without_autocast(lambda batch: compute(**batch), device)
        halves = feed.micro_batches(-(-len(feed) // 2))
        return self._weighting.agreed(feed, halves, looker(self._tuned.model, device, loss_of)) or likely

    def _labels(self, options: Mapping[str, Any]) -> Tensor:
        """Count labels as Trainer does."""
        name = "shift_labels" if "shift_labels" in options else "labels"
        shifted = name == "labels" and _shifts_labels(self._tuned.model)
        labels: Tensor = options[name][..., 1:] if shifted else options[name]
        return (labels != LEFT_OUT).sum()

    def _counted_by_trainer(self, options: Mapping[str, Any]) -> str:
        name = "shift_labels" if "shift_labels" in options else "labels"
        return labels_counted(name, shifted=name == "labels" and _shifts_labels(self._tuned.model))


def _shifts_labels(model: Any) -> bool:
    """Say whether Trainer leaves the first label of each row out, as causal language models do; not all versions do."""
    from inspect import unwrap

    from transformers import Trainer
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

    if "_loss_shifts_labels" not in unwrap(Trainer.__init__).__code__.co_names:
        return False
    causal = LOSS_MAPPING.get(getattr(model, "loss_type", None)) is ForCausalLMLoss
    return causal and not getattr(getattr(model, "config", None), "is_encoder_decoder", False)


def loss_in(outputs: Any) -> Tensor | None:
    """Give the loss in a model's outputs: a mapping with `loss`, or a tuple with the loss in front."""
    import torch

    found = outputs.get("loss") if isinstance(outputs, Mapping) else None
    if isinstance(outputs, tuple) and outputs and isinstance(outputs[0], torch.Tensor) and not outputs[0].ndim:
        found = outputs[0]
    return found


def with_loss(outputs: Any, loss: Tensor) -> Any:
    """Give outputs with another loss."""
    if isinstance(outputs, Mapping):
        outputs["loss"] = loss  # type: ignore[index]
        return outputs
    return (loss, *outputs[1:])
