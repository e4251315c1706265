"""A plan in an Accelerate loop: `ready = plan.for_accelerate(accelerator, model)`, then the usual lines.

The accelerator's settings have to agree with the plan (`AGREEING`); what the loop's body does itself, clipping say, is
handed over with `Ready`. Batches come from `ready.loader`, so that a plan's order of items is followed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.feed import Feeder
from strategies.execution.optimizer import MAX_NORM
from strategies.integrations.hooks import NOWHERE, Inside, carried_over
from strategies.training.apply import apply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from strategies.language.plan import Plan
    from strategies.training.tuned import Tuned

# What a strategy's `elsewhere` may give → what an Accelerator has to be, and how it is made so.
AGREEING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "precision": (lambda accelerator: accelerator.mixed_precision, "mixed_precision={!r}"),
    "micro_batches": (lambda accelerator: accelerator.gradient_accumulation_steps, "gradient_accumulation_steps={!r}"),
    "compiles": (lambda accelerator: accelerator.state.dynamo_plugin.backend.value == "NO", "dynamo_backend='no'"),
}
FREE = {"max_norm", "recomputes"}  # left to the body of the loop


@dataclass(frozen=True)
class Ready:
    """What an Accelerate loop takes; `max_norm` is for `accelerator.clip_grad_norm_`, `None` for no limit."""

    model: Any
    optimizer: Any
    scheduler: Any
    tuned: Tuned
    max_norm: float | None
    accelerator: Any
    inside: Inside
    micro_batches: int

    def evaluating(self) -> AbstractContextManager[None]:
        """Surround evaluation: eval mode, no gradients, averaged weights where the plan has them."""
        return self.tuned.evaluating()

    def save(self, folder: Path) -> int:
        """Write what trained, from the main process; `strategies.load` reads it. Gives the bytes written here."""
        return self.tuned.save(folder) if self.accelerator.is_main_process else 0

    def loader(
        self, dataset: Any, *, batch_size: int, collate: Callable[..., Any], generator: torch.Generator,
        drop_last: bool = True,
    ) -> DataLoader[Any]:  # fmt: skip
        """Give the plan's loader, prepared; `batch_size` is that of an update in one process, as in `Tuned.loader`."""
        from torch.utils.data import DataLoader

        if batch_size % self.micro_batches:
            raise PlanError(f"batch_size={batch_size} cannot be divided into {self.micro_batches} equal parts")
        if self.micro_batches > 1 and not drop_last:
            raise PlanError("the last update would have fewer micro-batches than Accelerate divides by: drop_last=True")
        made = self.tuned.loader(
            dataset, batch_size=batch_size, collate=collate, generator=generator, drop_last=drop_last
        )
        whole = made.collate_fn
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_sampler=_Divided(made.batch_sampler, batch_size, self.micro_batches, drop_last),
            collate_fn=_Whole(whole) if isinstance(whole, Feeder) else whole, pin_memory=made.pin_memory,
            generator=generator,
        )  # fmt: skip
        self.inside.fed = True
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


class _Divided:
    """The batches of updates, each in `parts` that follow each other; Accelerate reads `batch_size` and `drop_last`."""

    def __init__(self, updates: Any, batch_size: int, parts: int, drop_last: bool) -> None:
        self._updates, self._parts = updates, parts
        self.batch_size, self.drop_last = batch_size // parts, drop_last

    def __len__(self) -> int:
        return len(self._updates) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        for places in self._updates:
            size = -(-len(places) // self._parts)
            yield from (places[start : start + size] for start in range(0, len(places), size))


@dataclass(frozen=True)
class _Whole:
    """Collate a whole batch, where the plan's own loop would divide it."""

    feeder: Feeder

    def __call__(self, items: Sequence[Any]) -> Any:
        return self.feeder(items).collated[0].batch


def for_accelerate(
    plan: Plan, accelerator: Any, model: nn.Module, *, head: str | None = None, seed: int = 0,
    total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
) -> Ready:  # fmt: skip
    """Apply a plan and prepare model, optimizer and schedule; see `Recipe.for_accelerate`."""
    if accelerator.distributed_type.value not in {"NO", "MULTI_CPU", "MULTI_GPU"}:
        raise PlanError(f"the plan's optimizer is for whole weights, not for {accelerator.distributed_type.value}")
    settings, ours = carried_over(plan, accelerator.device, {*AGREEING, *FREE}, NOWHERE)
    for key in settings.keys() & AGREEING.keys():
        look, told = AGREEING[key]
        if look(accelerator) != settings[key]:
            raise PlanError(f"the plan needs Accelerator({told.format(settings[key])})")
    tuned = apply(
        plan, model, device=accelerator.device, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr
    )
    inside = Inside(tuned, ours, precision=accelerator.mixed_precision, processes=accelerator.num_processes)
    tuned.optimizer.register_step_pre_hook(lambda *_: inside.check())
    tuned.optimizer.register_step_post_hook(lambda *_: inside.updated())
    accelerator.register_for_checkpointing(inside)
    model, optimizer, scheduler = accelerator.prepare(tuned.model, tuned.optimizer, inside.schedule())
    return Ready(
        model, optimizer, scheduler, tuned, settings.get("max_norm", MAX_NORM), accelerator, inside,
        settings.get("micro_batches", 1),
    )  # fmt: skip
