"""Plans in the loops of others: Hugging Face's `Trainer` and Accelerate.

    Trainer(**plan.for_trainer(model, args), train_dataset=…).train()
    ready = plan.for_accelerate(Accelerator(), model)     # ready.model, ready.optimizer, ready.scheduler

What a member does to the model, the optimizer and the rates is done as everywhere; what our own loop would do goes to
the settings of theirs (`FIELDS`, `AGREEING`), and a plan that needs more than they offer is refused. Where the plan
says nothing, the other loop's settings stay as they are.
"""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.feeding import Feeder
from strategies.inside import NOWHERE, Inside, carried_over
from strategies.optimization import MAX_NORM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from strategies.plan import Plan
    from strategies.tuned import Tuned

# What a strategy's `elsewhere` may give → the fields of TrainingArguments it fixes.
FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "precision": lambda precision: {"bf16": precision == "bf16", "fp16": precision == "fp16"},
    "micro_batches": lambda number: {"gradient_accumulation_steps": number},
    "max_norm": lambda norm: {"max_grad_norm": norm or 0.0},  # None and 0: not limited
    "recomputes": lambda _: {"activation_checkpointing": False, "gradient_checkpointing": False},
    "compiles": lambda _: {"torch_compile": False},
}
# The same → what an Accelerator has to be, and how it is made so.
AGREEING: dict[str, tuple[Callable[[Any], Any], str]] = {
    "precision": (lambda accelerator: accelerator.mixed_precision, "mixed_precision={!r}"),
    "micro_batches": (lambda accelerator: accelerator.gradient_accumulation_steps, "gradient_accumulation_steps={!r}"),
    "compiles": (lambda accelerator: accelerator.state.dynamo_plugin.backend.value == "NO", "dynamo_backend='no'"),
}
FREE = {"max_norm", "recomputes"}  # left to the body of the loop


def for_trainer(
    plan: Plan, model: nn.Module, args: Any, *, head: str | None = None, seed: int | None = None,
    collate: Callable[..., Any] | None = None, total_steps: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Apply a plan and give the arguments of a `Trainer`; see `Plan.for_trainer`."""
    if getattr(args, "deepspeed", None) or getattr(args, "fsdp", None) or args.n_gpu > 1:
        raise PlanError(
            "the plan's optimizer is for whole weights in one process per GPU: leave deepspeed and fsdp out, and start "
            "one process for each GPU (torchrun, or CUDA_VISIBLE_DEVICES for one)"
        )
    settings, ours = carried_over(plan, args.device, FIELDS, [*NOWHERE, "loader"])
    changed = dataclasses.replace(args, **_changes(args, settings))
    steps = total_steps or (args.max_steps if args.max_steps > 0 else None)
    if steps is None and not any(member.rate_share(0, None) is not None for member in plan.members):
        raise PlanError(
            "the schedule needs the number of updates: give total_steps=… (updates per epoch × epochs), or "
            "TrainingArguments(max_steps=…)"
        )
    tuned = plan.apply(
        model, device=args.device, head=head, seed=args.seed if seed is None else seed, total_steps=steps
    )
    inside = Inside(tuned, ours)
    # With a forward that takes **kwargs Trainer leaves it to the model to divide its loss by all labels of the update,
    # and adds up micro-batches and processes: BERT's classifier does not divide, and its gradients would grow n-fold.
    tuned.model.accepts_loss_kwargs = False  # type: ignore[assignment]
    callback = _callback(inside)
    given = {"data_collator": collate} if collate else {}
    optimizers = (tuned.optimizer, inside.schedule())
    return {"model": tuned.model, "args": changed, "optimizers": optimizers, "callbacks": [callback], **given}


def _changes(args: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Give the fields to change; those that somebody has set to something else are a contradiction."""
    known = {field.name: field.default for field in dataclasses.fields(args)}
    wanted = {name: value for key, told in settings.items() for name, value in FIELDS[key](told).items()}
    wanted = {name: value for name, value in wanted.items() if name in known}
    for name, value in wanted.items():
        now = getattr(args, name)
        if now not in {value, known[name]} or (name == "gradient_accumulation_steps" and now != known[name]):
            raise PlanError(f"TrainingArguments({name}={now!r}) contradicts the plan, which sees to it: leave it out")
    number = settings.get("micro_batches", 1)
    if args.per_device_train_batch_size % number:
        raise PlanError(
            f"an update of per_device_train_batch_size={args.per_device_train_batch_size} examples cannot be divided "
            f"into {number} equal parts"
        )
    wanted["per_device_train_batch_size"] = args.per_device_train_batch_size // number
    return {name: value for name, value in wanted.items() if getattr(args, name) != value}


class Events:
    """Trainer's events, passed on to a plan; `tuned` is the plan's own object."""

    def __init__(self, inside: Inside) -> None:
        self.inside = inside
        self.tuned = inside.tuned

    def save(self, folder: Path) -> int:
        """Write what trained; `strategies.load` reads it."""
        return self.tuned.save(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start, or go on from a checkpoint."""
        del args, control
        self.inside.resume(state.global_step)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin an update."""
        self.inside.begin()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Look at the first gradients."""
        self.inside.check()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """End an update, whose gradients are still there."""
        self.inside.updated()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make ready for evaluating and saving, which come next."""
        del args
        last = state.global_step >= state.max_steps
        if last or control.should_evaluate or control.should_save or control.should_training_stop:
            self.inside.average()

    on_epoch_end = on_step_end

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the model as it is to be used."""
        self.inside.average()


def _callback(inside: Inside) -> Any:
    """Make a callback; transformers has its class only once imported."""
    from transformers import TrainerCallback

    return type("PlanCallback", (Events, TrainerCallback), {})(inside)


@dataclass(frozen=True)
class Ready:
    """What an Accelerate loop takes; `max_norm` is for `accelerator.clip_grad_norm_`, `None` for no limit."""

    model: Any
    optimizer: Any
    scheduler: Any
    tuned: Tuned
    max_norm: float | None
    accelerator: Any
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
        if batch_size % self.micro_batches:
            raise PlanError(f"batch_size={batch_size} cannot be divided into {self.micro_batches} equal parts")
        loader = self.tuned.loader(
            dataset, batch_size=batch_size // self.micro_batches, collate=collate, generator=generator,
            drop_last=drop_last,
        )  # fmt: skip
        if isinstance(loader.collate_fn, Feeder):
            loader.collate_fn = _Whole(loader.collate_fn)
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared


@dataclass(frozen=True)
class _Whole:
    """Collate a whole batch, where the plan's own loop would divide it."""

    feeder: Feeder

    def __call__(self, items: Sequence[Any]) -> Any:
        return self.feeder(items).made[0]


def for_accelerate(
    plan: Plan, accelerator: Any, model: nn.Module, *, head: str | None = None, seed: int = 0,
    total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
) -> Ready:  # fmt: skip
    """Apply a plan and prepare model, optimizer and schedule; see `Plan.for_accelerate`."""
    if accelerator.distributed_type.value not in {"NO", "MULTI_CPU", "MULTI_GPU"}:
        raise PlanError(f"the plan's optimizer is for whole weights, not for {accelerator.distributed_type.value}")
    settings, ours = carried_over(plan, accelerator.device, {*AGREEING, *FREE}, NOWHERE)
    for key in settings.keys() & AGREEING.keys():
        look, told = AGREEING[key]
        if look(accelerator) != settings[key]:
            raise PlanError(f"the plan needs Accelerator({told.format(settings[key])})")
    tuned = plan.apply(
        model, device=accelerator.device, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr
    )
    inside = Inside(tuned, ours)
    tuned.optimizer.register_step_pre_hook(lambda *_: inside.check())
    tuned.optimizer.register_step_post_hook(lambda *_: inside.updated())
    accelerator.register_for_checkpointing(inside)
    model, optimizer, scheduler = accelerator.prepare(tuned.model, tuned.optimizer, inside.schedule())
    return Ready(
        model, optimizer, scheduler, tuned, settings.get("max_norm", MAX_NORM), accelerator,
        settings.get("micro_batches", 1),
    )  # fmt: skip
