"""A plan inside somebody else's training loop: its hooks called from there, its structure in their checkpoints.

`loop_settings` says what the other loop has to be set to, and refuses what it cannot do. `PlanHooks` wraps the model's
forward and offers what the loop's own events call: `begin_update`, `end_update`, `use_averaged_weights`.
`exclude_base_weights` keeps the pretrained weights out of `state_dict()`, so that any loop's checkpoints hold what was
tuned and nothing else.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.integrations.loop_shares import NUM_ITEMS, LoopShares, loss_in, with_loss
from strategies.protocol import Strategy
from strategies.training.apply import overridden
from strategies.training.parameter_groups import plan_lr_multiplier
from strategies.training.tuned import PLAN_ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack

    import torch
    from torch import nn

    from strategies.language.plan import Plan
    from strategies.training.tuned import Tuned

# Hooks that no other loop has a place for.
UNSUPPORTED_HOOKS = ("select_examples", "run_micro_batches", "prepare_batch", "engine", "clipping")
STATEFUL_HOOKS = ("before_step", "after_update", "evaluating")  # hooks whose members keep what others' checkpoints lack


def loop_settings(
    plan: Plan, device: torch.device | str, supported: Iterable[str], unsupported: Sequence[str]
) -> tuple[dict[str, Any], list[Strategy]]:
    """Give the settings that the other loop needs, and the members whose forward stays the plan's.

    A member with one of the `unsupported` hooks, or with a setting that is not `supported`, is refused: nothing of a
    plan is left out without a word.
    """
    settings: dict[str, Any] = {}
    forward_members, problems = [], []
    for member in plan.members:
        answer = member.external_loop_settings(plan.facts(device))
        if isinstance(answer, Mapping):
            settings.update(answer)
            problems += [
                f"{member.name} needs {key!r}, which this loop cannot set" for key in answer if key not in supported
            ]
            continue
        forward_members.append(member)
        missing = overridden(member, unsupported) + (["needs_items"] if member.needs_items else [])
        if missing:
            reason = f"works by {', '.join(missing)}, which this loop has no place for: train with tuned.step"
            problems.append(f"{member.name}: {answer or reason}")
    if problems:
        raise PlanError("; ".join(problems))
    return settings, forward_members


class PlanHooks:
    """The hooks of a plan's members for a loop that is not ours; `tuned` is what `Recipe.apply` gave."""

    def __init__(
        self, tuned: Tuned, forward_members: Sequence[Strategy], *, precision: str, processes: int,
        micro_batches: int = 1, counts_labels: bool = False,
    ) -> None:  # fmt: skip
        self.tuned = tuned
        self._shares = LoopShares(tuned, several=micro_batches > 1, processes=processes)
        self._counts_labels = counts_labels  # whether the loop hands over the number of an update's labels
        # Whether batches come from the plan's own loader.
        self.uses_plan_loader = not any(overridden(member, ["loader"]) for member in tuned.plan.members)
        self._members = tuned.plan.members
        self._averaged: ExitStack | None = None
        self._in_update = False
        self._uses_loss_scaler, self._processes = precision == "fp16", processes
        vars(tuned.model)[PLAN_ATTRIBUTE] = str(tuned.plan)  # a second plan would meet this one's hooks
        self._wrap(forward_members)
        exclude_base_weights(tuned)
        if any(overridden(member, ["evaluating"]) for member in self._members):
            atexit.register(_restore_at_exit, weakref.ref(self))

    @property
    def averaged(self) -> bool:
        """Whether the weights in the model are those to evaluate and save."""
        return self._averaged is not None

    def begin_update(self) -> None:
        """Begin an update, unless it has begun: weights to train come back, rates are set, members prepare it."""
        if self._in_update:
            return
        if not self.uses_plan_loader:
            names = ", ".join(member.name for member in self._members if overridden(member, ["loader"]))
            raise PlanError(f"{names}: the order of items is part of the plan: take batches from ready.loader(…)")
        self.use_training_weights()
        self.tuned.set_rates()
        before = self._trained() if self._processes > 1 else []
        for member in self._members:
            member.before_step(self.tuned.state)
        if self._processes > 1 and self._trained() != before:
            raise PlanError("what trains changes, which DistributedDataParallel cannot follow: train in one process")
        self._in_update = True

    def _trained(self) -> list[bool]:
        return [parameter.requires_grad for parameter in self.tuned.model.parameters()]

    def check(self) -> None:
        """Check the gradients of the first updates, which are whole now."""
        self.tuned.losses.check.judge(self.tuned.engine.named_gradients(), finite=not self._uses_loss_scaler)

    def end_update(self) -> None:
        """End an update: the optimizer has taken its step, gradients are still there."""
        for member in self._members:
            member.after_update(self.tuned.state)
        self.tuned.state.step += 1
        self._in_update = False
        self._shares.end_update()

    def use_averaged_weights(self) -> None:
        """Put in place what is to be evaluated and saved, unless it is there or an update is under way."""
        unavailable = self.tuned.averaged_depth or self.tuned.merged
        if self._averaged is None and not self._in_update and not unavailable:
            self._averaged = self.tuned.averaged()

    def use_training_weights(self) -> None:
        """Put the weights to train back, unless they are there."""
        if self._averaged is not None:
            self._averaged.close()
            self._averaged = None

    def schedule(self) -> torch.optim.lr_scheduler.LambdaLR:
        """Give the plan's schedule; it follows the updates, however often it is stepped."""
        from torch.optim.lr_scheduler import LambdaLR

        state = self.tuned.state
        return LambdaLR(state.optimizer, lambda _: plan_lr_multiplier(self._members, state.step, state.total_steps))

    def resume(self, step: int) -> None:
        """Go on after `step` updates; refused where a member keeps more than their checkpoints hold."""
        keeping = [member.name for member in self._members if step and overridden(member, STATEFUL_HOOKS)]
        if keeping:
            raise PlanError(
                f"{', '.join(keeping)}: what it keeps from update to update is not in the checkpoint, so training "
                "cannot go on from there; start anew"
            )
        self.tuned.state.step = step

    def state_dict(self) -> dict[str, Any]:
        """Give the number of updates done."""
        return {"step": self.tuned.state.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was written."""
        self.resume(state["step"])

    def _wrap(self, forward_members: Sequence[Strategy]) -> None:
        """Put the members' wrappers and additional losses around the model's forward."""
        import torch

        model: Any = self.tuned.model
        plain = model.forward
        inner: Callable[..., Any] = plain
        for member in forward_members:
            inner = member.wrap_forward(inner, self.tuned.context)

        @wraps(plain)
        def forward(*arguments: Any, **options: Any) -> Any:
            total = options.pop(NUM_ITEMS, None) if self._counts_labels else None
            if self.tuned.merged:
                return plain(*arguments, **options)
            if not model.training:
                self.use_averaged_weights()
            if not (model.training and torch.is_grad_enabled()):
                return self._shares.of_evaluation(inner(*arguments, **options), options, total)
            self.begin_update()
            with self.tuned.losses.check.watching():
                outputs = inner(*arguments, **options)
            return self._shares.of_training(self._add_extra_losses(outputs), inner, options, total)

        model.forward = forward
        model.register_state_dict_pre_hook(lambda *_: self.use_averaged_weights())

    def _add_extra_losses(self, outputs: Any) -> Any:
        """Add what members add to the loss, in full precision as in our own loop."""
        import torch

        with torch.autocast(self.tuned.device.type, enabled=False):
            terms = [term for member in self._members if (term := member.extra_loss(self.tuned.state)) is not None]
        return with_extra_loss(outputs, sum(terms)) if terms else outputs


def _restore_at_exit(reference: weakref.ref[PlanHooks]) -> None:
    """End what was entered, while there still is a torch to do it with."""
    hooks = reference()
    if hooks is not None:
        hooks.use_training_weights()


def with_extra_loss(outputs: Any, term: Any) -> Any:
    """Give outputs whose loss is larger by `term`: a mapping with `loss`, or a tuple with the loss in front."""
    loss = loss_in(outputs)
    if loss is None:
        raise PlanError(
            "a member of the plan adds to the loss, so the model has to compute it: give it labels, and leave "
            "compute_loss_func and label_smoothing_factor out"
        )
    return with_loss(outputs, loss + term)


def exclude_base_weights(tuned: Tuned) -> None:
    """Keep what a fresh base has out of `state_dict()`, and do not miss it in `load_state_dict()`.

    Stay: the plan's own parameters, persistent buffers, what modules add for themselves (`get_extra_state`), and
    everything once the adapters are merged.
    """
    model, own = tuned.model, tuned.saved_names
    loaded_prefix = [""]  # the prefix of the model in what is being loaded: "module." under DistributedDataParallel

    def is_saved(name: str) -> bool:
        return tuned.merged or name in own or name in buffers or name.endswith("_extra_state")

    def drop_base(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
        del module, metadata
        for name in [name for name in state if name.startswith(prefix) and not is_saved(name[len(prefix) :])]:
            del state[name]

    def note_prefix(module: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        del module, state, rest
        loaded_prefix[0] = prefix

    def ignore_missing_base(module: nn.Module, keys: Any) -> None:
        del module
        keys.missing_keys[:] = [
            name
            for name in keys.missing_keys
            if not name.startswith(loaded_prefix[0]) or is_saved(name[len(loaded_prefix[0]) :])
        ]

    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    model.register_state_dict_post_hook(drop_base)
    model.register_load_state_dict_pre_hook(note_prefix)
    model.register_load_state_dict_post_hook(ignore_missing_base)
