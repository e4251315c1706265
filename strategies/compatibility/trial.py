"""Try a plan on a tiny two-tower model on CPU: whether it runs, is refused, and what it leaves behind.

This is the ground truth behind `docs/compatibility.md`. A trial trains three updates with an evaluation in between.
What it leaves behind is a `Trace`: losses, what trains, number types, bytes kept for the backward pass, learning rates,
graphs compiled. A member whose presence leaves no trace at all is inert, which is as wrong as a crash.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from strategies.compatibility.tiny_model import BATCH, STEPS, tiny_collate, tiny_items, tiny_loss, tiny_model
from strategies.errors import PlanError
from strategies.recipe import Recipe, compose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from strategies.training.tuned import Tuned

Status = Literal["ok", "refused", "unverified", "inert", "crashed"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and why."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Trace:
    """What a run leaves behind that a member could have changed."""

    losses: tuple[float, ...]
    trained: tuple[str, ...]
    number_types: tuple[str, ...]
    saved_bytes: tuple[int, int]  # as seen by hooks outside and inside those of the plan
    rates: tuple[float, ...]
    graphs: int
    pictures: int  # that went through the vision tower
    gradients: tuple[int, ...]  # that are there when the weights are updated
    scores: tuple[float, ...]  # evaluated in the end


def try_plan(text: str) -> tuple[Outcome, Trace | None]:
    """Run a sum of strategies on the tiny model; a trace for what ran."""
    try:
        plan = compose(text)
        problems = plan.problems("cpu", tiny_model(), item=tiny_items()[0])
        if problems:
            kinds = {problem.kind for problem in problems}
            reasons = [
                problem.reason for problem in problems if kinds == {"unavailable"} or problem.kind != "unavailable"
            ]
            return Outcome("unverified" if kinds == {"unavailable"} else "refused", "; ".join(reasons)), None
        return Outcome("ok"), _run(plan)
    except PlanError as problem:
        return Outcome("refused", str(problem)), None
    except Exception as problem:  # noqa: BLE001 - the purpose of a trial is to find out what raises
        return Outcome("crashed", f"{type(problem).__name__}: {problem}"), None
    finally:
        _reset_dynamo()


class SavedBytesCounter:
    """Sums the bytes that autograd saves."""

    def __init__(self) -> None:
        self.total = 0

    def hooks(self) -> AbstractContextManager[None]:
        """Count inside; hooks that are set further in see the tensors in place of these."""
        import torch

        return torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)

    def wrap_loss(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Count in a loss function."""

        def counted(*arguments: Any) -> Tensor:
            with self.hooks():
                return loss(*arguments)

        return counted

    def _count(self, tensor: Tensor) -> Tensor:
        self.total += tensor.numel() * tensor.element_size()
        return tensor


def _run(plan: Recipe) -> Trace:
    """Train, evaluate and train on; refuse results that are not finite or do not move."""
    import torch

    torch.manual_seed(1)
    items = tiny_items()
    whole = tiny_collate(items)
    tuned = plan.apply(tiny_model(), total_steps=STEPS)
    order = torch.Generator().manual_seed(3)
    loader = tuned.loader(items, batch_size=BATCH, collate=tiny_collate, generator=order)
    before = _scores(tuned, whole)
    seen_before = _pictures(tuned.model)
    outer, inner = SavedBytesCounter(), SavedBytesCounter()
    gradients = _count_gradients(tuned)
    losses = []
    for step, batch in enumerate(loader):
        with outer.hooks():
            losses.append(float(tuned.step(tiny_loss if step else inner.wrap_loss(tiny_loss), batch)))
        if step == 0:
            _scores(tuned, whole)
    pictures = _pictures(tuned.model) - seen_before
    after = _scores(tuned, whole)
    assert torch.isfinite(after).all(), "outputs are not finite"
    assert not torch.equal(after, before), "outputs did not move"
    return Trace(
        losses=tuple(losses),
        trained=tuple(sorted(name for name, p in tuned.model.named_parameters() if p.requires_grad)),
        number_types=tuple(str(p.dtype) for p in tuned.model.parameters()),
        saved_bytes=(outer.total, inner.total),
        rates=tuple(float(group["lr"]) for group in tuned.optimizer.param_groups),
        graphs=_graphs(),
        pictures=pictures,
        gradients=tuple(gradients),
        scores=tuple(after.flatten().tolist()),
    )


def _scores(tuned: Tuned, batch: Mapping[str, Tensor]) -> torch.Tensor:
    with tuned.evaluating():
        scores: torch.Tensor = tuned.model(batch).float()
        return scores


def _count_gradients(tuned: Tuned) -> list[int]:
    """Give a list that grows by a number with each update."""
    counts: list[int] = []
    update = tuned.engine.update

    def counted() -> None:
        counts.append(sum(parameter.grad is not None for parameter in tuned.model.parameters()))
        update()

    vars(tuned.engine)["update"] = counted
    return counts


def _pictures(model: nn.Module) -> int:
    """Count the pictures that went through the vision tower so far."""
    return int(vars(model.get_submodule("vision")).get("pictures", 0))


def _graphs() -> int:
    """Count the graphs compiled so far."""
    dynamo = sys.modules.get("torch._dynamo")
    return int(dynamo.utils.counters["stats"]["unique_graphs"]) if dynamo else 0


def _reset_dynamo() -> None:
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo:
        dynamo.reset()
        dynamo.utils.counters.clear()
