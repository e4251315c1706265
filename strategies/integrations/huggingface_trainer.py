"""A plan in Hugging Face's Trainer: `Trainer(**plan.for_trainer(model, args), train_dataset=…).train()`.

What a member does to the model, the optimizer and the rates is done as everywhere; what our own loop would do goes to
Trainer's settings (`FIELDS`), and a plan that needs more than they offer is refused. Where the plan says nothing,
Trainer's settings stay as they are; those that would not be read (`IGNORED_ARGUMENTS`) are refused.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.integrations.hooks import UNSUPPORTED_HOOKS, PlanHooks, loop_settings
from strategies.training.apply import apply

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from strategies.language.plan import Plan
    from strategies.layout import HeadChoice

# What a strategy's `external_loop_settings` may give → the fields of TrainingArguments it fixes.
FIELDS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "precision": lambda precision: {"bf16": precision == "bf16", "fp16": precision == "fp16"},
    "micro_batches": lambda number: {"gradient_accumulation_steps": number},
    "max_norm": lambda norm: {"max_grad_norm": norm or 0.0},  # None and 0: not limited
    "recomputes": lambda _: {"activation_checkpointing": False, "gradient_checkpointing": False},
    "compiles": lambda _: {"torch_compile": False},
}
# Fields of TrainingArguments that only Trainer's own optimizer and schedule read → how the plan says it.
IGNORED_ARGUMENTS = {
    "learning_rate": "give lr=… to for_trainer, or to the plan's member (lora(lr=1e-3))",
    **dict.fromkeys(("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps"), "write schedule(…) in the plan"),
    **dict.fromkeys(("optim", "optim_args", "optim_target_modules"), "write an optimizer in the plan (lion, muon, …)"),
    **dict.fromkeys(("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"), "plans have 0.01 and AdamW's own"),
    "auto_find_batch_size": "write accumulate(n=…) in the plan, which leaves the update's batch as it is",
}


def for_trainer(
    plan: Plan, model: nn.Module, args: Any, *, head: HeadChoice = "auto", seed: int | None = None,
    collate: Callable[..., Any] | None = None, total_steps: int | None = None,
    lr: float | None = None, head_lr: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Apply a plan and give the arguments of a `Trainer`; see `Recipe.for_trainer`."""
    if getattr(args, "deepspeed", None) or getattr(args, "fsdp", None) or args.n_gpu > 1:
        raise PlanError(
            "the plan's optimizer is for whole weights in one process per GPU: leave deepspeed and fsdp out, and start "
            "one process for each GPU (torchrun, or CUDA_VISIBLE_DEVICES for one)"
        )
    settings, forward_members = loop_settings(plan, args.device, FIELDS, [*UNSUPPORTED_HOOKS, "loader"])
    changed = dataclasses.replace(args, **_changes(args, settings))
    steps = total_steps or (args.max_steps if args.max_steps > 0 else None)
    tuned = apply(
        plan, model, device=args.device, head=head, seed=args.seed if seed is None else seed, total_steps=steps, lr=lr,
        head_lr=head_lr,
    )  # fmt: skip
    precision = "fp16" if changed.fp16 else "fp32"
    hooks = PlanHooks(
        tuned, forward_members, precision=precision, processes=args.world_size,
        micro_batches=changed.gradient_accumulation_steps, counts_labels=True,
    )  # fmt: skip
    # Trainer counts the labels of an update for models that divide by them. Not all that say so do (BERT's classifier),
    # so the hooks take the count and share the model's own mean by it.
    tuned.model.accepts_loss_kwargs = True  # type: ignore[assignment]
    callback = _callback(hooks, writes=args.process_index == 0)
    given = {"data_collator": collate} if collate else {}
    optimizers = (tuned.optimizer, hooks.schedule())
    return {"model": tuned.model, "args": changed, "optimizers": optimizers, "callbacks": [callback], **given}


def _changes(args: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Give the fields to change; those that somebody has set to something else are a contradiction."""
    known = {field.name: field.default for field in dataclasses.fields(args)}
    unread = [name for name in IGNORED_ARGUMENTS if name in known and getattr(args, name) != known[name]]
    if unread:
        told = [f"{name}={getattr(args, name)!r} ({IGNORED_ARGUMENTS[name]})" for name in unread]
        raise PlanError(f"TrainingArguments that would not be read, as the plan sees to it: {'; '.join(told)}")
    changes = {name: value for key, told in settings.items() for name, value in FIELDS[key](told).items()}
    changes = {name: value for name, value in changes.items() if name in known}
    for name, value in changes.items():
        now = getattr(args, name)
        if now not in {value, known[name]} or (name == "gradient_accumulation_steps" and now != known[name]):
            raise PlanError(f"TrainingArguments({name}={now!r}) contradicts the plan, which sees to it: leave it out")
    number = settings.get("micro_batches", 1)
    if args.per_device_train_batch_size % number:
        raise PlanError(
            f"an update of per_device_train_batch_size={args.per_device_train_batch_size} examples cannot be divided "
            f"into {number} equal parts"
        )
    changes["per_device_train_batch_size"] = args.per_device_train_batch_size // number
    return {name: value for name, value in changes.items() if getattr(args, name) != value}


class TrainerEvents:
    """Trainer's events, passed on to a plan; `tuned` is the plan's own object."""

    def __init__(self, hooks: PlanHooks, *, writes: bool) -> None:
        self.hooks, self.writes = hooks, writes
        self.tuned = hooks.tuned

    def save(self, folder: Path) -> int:
        """Write what trained, from the main process; `strategies.load` reads it. Gives the bytes written here."""
        return self.tuned.save(folder) if self.writes else 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start, or go on from a checkpoint; the number of updates is known now."""
        del args, control
        told = self.tuned.state.total_steps
        if told not in {None, state.max_steps}:
            raise PlanError(f"total_steps={told}, but Trainer does {state.max_steps} updates: leave total_steps out")
        self.tuned.state.total_steps = state.max_steps
        self.hooks.resume(state.global_step)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Begin an update."""
        self.hooks.begin_update()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Look at the first gradients."""
        self.hooks.check()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """End an update, whose gradients are still there."""
        self.hooks.end_update()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make ready for evaluating and saving, which come next."""
        del args
        last = state.global_step >= state.max_steps
        if last or control.should_evaluate or control.should_save or control.should_training_stop:
            self.hooks.use_averaged_weights()

    on_epoch_end = on_step_end

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the model as it is to be used."""
        self.hooks.use_averaged_weights()


def _callback(hooks: PlanHooks, *, writes: bool) -> Any:
    """Make a callback; transformers has its class only once imported."""
    from transformers import TrainerCallback

    return type("PlanCallback", (TrainerEvents, TrainerCallback), {})(hooks, writes=writes)
