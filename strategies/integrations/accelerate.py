"""A plan in an Accelerate loop: `ready = plan.for_accelerate(accelerator, model)`, then the usual lines.

The accelerator's settings have to agree with the plan (`REQUIRED_SETTINGS`); what the loop's body does itself, clipping
say, is handed over with `PreparedLoop`. Batches come from `ready.loader`, so that a plan's order of items is followed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.feed import FeedCollator
from strategies.execution.optimizer import MAX_NORM
from strategies.integrations.hooks import UNSUPPORTED_HOOKS, PlanHooks, loop_settings
from strategies.training.apply import apply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from strategies.language.plan import Plan
    from strategies.layout import HeadChoice
    from strategies.training.tuned import Tuned

# What a strategy's `external_loop_settings` may give → what an Accelerator has to be, and how it is made so.
REQUIRED_SETTINGS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "precision": (lambda accelerator: accelerator.mixed_precision, "mixed_precision={!r}"),
    "micro_batches": (lambda accelerator: accelerator.gradient_accumulation_steps, "gradient_accumulation_steps={!r}"),
    "compiles": (lambda accelerator: accelerator.state.dynamo_plugin.backend.value == "NO", "dynamo_backend='no'"),
}
LOOP_BODY_SETTINGS = {"max_norm", "recomputes"}  # left to the body of the loop


@dataclass(frozen=True)
class PreparedLoop:
    """What an Accelerate loop takes; `max_norm` is for `accelerator.clip_grad_norm_`, `None` for no limit."""

    model: Any
    optimizer: Any
    scheduler: Any
    tuned: Tuned
    max_norm: float | None
    accelerator: Any
    hooks: PlanHooks
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
        plan_loader = self.tuned.loader(
            dataset, batch_size=batch_size, collate=collate, generator=generator, drop_last=drop_last
        )
        collate_fn = plan_loader.collate_fn
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_sampler=_MicroBatchSampler(plan_loader.batch_sampler, batch_size, self.micro_batches, drop_last),
            collate_fn=_WholeBatchCollator(collate_fn) if isinstance(collate_fn, FeedCollator) else collate_fn,
            pin_memory=plan_loader.pin_memory, generator=generator,
        )  # fmt: skip
        self.hooks.uses_plan_loader = True
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


class _MicroBatchSampler:
    """The batches of updates, each in `parts` that follow each other; Accelerate reads `batch_size` and `drop_last`."""

    def __init__(self, updates: Any, batch_size: int, parts: int, drop_last: bool) -> None:
        self._updates, self._parts = updates, parts
        self.batch_size, self.drop_last = batch_size // parts, drop_last

    def __len__(self) -> int:
        return len(self._updates) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        for positions in self._updates:
            size = -(-len(positions) // self._parts)
            yield from (positions[start : start + size] for start in range(0, len(positions), size))


@dataclass(frozen=True)
class _WholeBatchCollator:
    """Collate a whole batch, where the plan's own loop would divide it."""

    feeder: FeedCollator

    def __call__(self, items: Sequence[Any]) -> Any:
        return self.feeder(items).collated[0].batch


def for_accelerate(
    plan: Plan, accelerator: Any, model: nn.Module, *, head: HeadChoice = "auto", seed: int = 0,
    total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
) -> PreparedLoop:  # fmt: skip
    """Apply a plan and prepare model, optimizer and schedule; see `Recipe.for_accelerate`."""
    if accelerator.distributed_type.value not in {"NO", "MULTI_CPU", "MULTI_GPU"}:
        raise PlanError(f"the plan's optimizer is for whole weights, not for {accelerator.distributed_type.value}")
    settings, forward_members = loop_settings(
        plan, accelerator.device, {*REQUIRED_SETTINGS, *LOOP_BODY_SETTINGS}, UNSUPPORTED_HOOKS
    )
    for key in settings.keys() & REQUIRED_SETTINGS.keys():
        current, argument = REQUIRED_SETTINGS[key]
        if current(accelerator) != settings[key]:
            raise PlanError(f"the plan needs Accelerator({argument.format(settings[key])})")
    tuned = apply(
        plan, model, device=accelerator.device, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr
    )
    hooks = PlanHooks(
        tuned, forward_members, precision=accelerator.mixed_precision, processes=accelerator.num_processes,
        micro_batches=accelerator.gradient_accumulation_steps,
    )  # fmt: skip
    tuned.optimizer.register_step_pre_hook(lambda *_: hooks.check())
    tuned.optimizer.register_step_post_hook(lambda *_: hooks.end_update())
    accelerator.register_for_checkpointing(hooks)
    model, optimizer, scheduler = accelerator.prepare(tuned.model, tuned.optimizer, hooks.schedule())
    return PreparedLoop(
        model, optimizer, scheduler, tuned, settings.get("max_norm", MAX_NORM), accelerator, hooks,
        settings.get("micro_batches", 1),
    )  # fmt: skip
