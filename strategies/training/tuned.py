"""What `Recipe.apply` gives back: a model made ready, and one call per optimizer update.

`step` is the whole training loop's body. After the first update it reads no value back from the device, unless a member
does (their cards say so) or fp16's loss scaler has to know whether to step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.feed import as_feed
from strategies.execution.optimizer import clip_grad_norm
from strategies.protocol import Context, State, Strategy
from strategies.saving.merge import Merged, merge_adapters, settle
from strategies.saving.moved_base import keep_moved
from strategies.saving.weights_file import write
from strategies.training.adapted import adapted_layers, layer_lines
from strategies.training.loader import training_loader
from strategies.training.losses import Losses
from strategies.training.parameter_groups import plan_lr_multiplier, set_rates
from strategies.training.summary import count_parameters, head_line, memory_by_kind, storage_lines, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from strategies.execution.engine import Engine
    from strategies.language.plan import Plan
    from strategies.saving.base_hashes import Hash
    from strategies.saving.moved_base import Noted
    from strategies.training.losses import LossFunction

PLAN_ATTRIBUTE = "_tunematrix_plan"  # on a model that a plan has changed


class Tuned:
    """A model under a plan, with its optimizer; made by `Recipe.apply`.

    `plan` is what was applied, `state.step` the number of updates done, `trained` the names of what may train.
    """

    def __init__(
        self, plan: Plan, engine: Engine, context: Context, state: State, *, saved_names: frozenset[str],
        lr_overrides: Mapping[str, float | None],
    ) -> None:  # fmt: skip
        self.plan, self.engine, self.context, self.state = plan, engine, context, state
        self.saved_names = saved_names  # what a fresh base lacks: all that may train, new parts, what the plan added
        self.trained = frozenset(name for name, p in state.model.named_parameters() if p.requires_grad)
        self.setup_seconds = 0.0  # of the plan's own work on the model
        self.base: Mapping[str, Hash] = {}  # what is not saved, as it was before the plan
        self.noted: Mapping[str, Noted] = {}  # of these, once the plan was applied
        self.base_note = ""  # what `load` found of it
        self.averaged_depth = 0  # how often `averaged` is entered
        self._lr_overrides = lr_overrides  # rates in place of the plan's
        self._peak_lrs = [float(group["lr"]) for group in state.optimizer.param_groups]
        self._merged = False
        self.losses = Losses(plan, engine, context, state)
        self._eval_forward = self.losses.wrap(state.model.forward)
        self._clip_gradients: Callable[[Sequence[Tensor]], object] = clip_grad_norm
        for member in plan.members:
            self._clip_gradients = member.clipping(self._clip_gradients)

    @property
    def model(self) -> nn.Module:
        """The model to call: the object that `apply` was given."""
        return self.state.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over everything that trains; `step` calls it."""
        return self.state.optimizer

    @property
    def device(self) -> torch.device:
        """Where the model is, and where `step` moves batches."""
        return self.state.device

    def step(self, loss_fn: LossFunction, batch: Any) -> Tensor:
        """Do one optimizer update on `batch`, in training mode; give the detached mean loss, (), still on the device.

        batch: what `loader` yields, or any other; to be divided, tensors that share dimension 0 or lists of examples.
        loss_fn: `loss_fn(model, batch)` gives each example's loss, (n,), their mean, (), or any mean as `(sum, count)`.
        `SelfCheckError` in the first updates where a whole tower or an adapter gets no gradient, or one is not finite
        (a `UserWarning` names other parameters without any); `PlanError` for what cannot be divided
        (https://huggingface.co/blog/gradient_accumulation), a mean where losses are needed, and after `merge`.
        """
        self._refuse_merged()
        state, members = self.state, self.plan.members
        if not state.model.training:  # as `load` leaves it
            state.model.train()
        for member in members:
            member.before_step(state)
        feed = as_feed(batch)
        for member in members:
            feed = member.select_examples(feed, partial(self.losses.per_example, loss_fn), state)
        self.set_rates()
        run: Callable[[int], Tensor] = partial(self.losses.forward_backward, loss_fn, feed)
        for member in members:
            run = partial(_run_member, member, run, state)
        loss = run(len(feed))
        self.engine.unscale_gradients()
        if not self.losses.check.done:
            self.losses.check.judge(self.engine.named_gradients(), finite=not self.engine.scaler.is_enabled())
        self.engine.clip(self._clip_gradients)
        self.engine.update()
        for member in members:
            member.after_update(state)
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        return loss

    def set_rates(self) -> None:
        """Set each group's learning rate for the update that comes next; `step` does so itself."""
        share = plan_lr_multiplier(self.plan.members, self.state.step, self.state.total_steps)
        set_rates(self.state.optimizer, [peak * share for peak in self._peak_lrs])

    @property
    def merged(self) -> bool:
        """Whether `merge` has added the adapters to the weights."""
        return self._merged

    def loader(
        self, dataset: Any, *, batch_size: int, collate: Callable[..., Any], generator: torch.Generator,
        drop_last: bool = True,
    ) -> DataLoader[Any]:  # fmt: skip
        """Give a shuffled loader over `dataset`, whose order comes from `generator` alone.

        batch_size: examples of an update, whatever a member divides it into. collate: items → batch.
        `PlanError` for items without what a member needs (keys, lengths), and for fewer items than one batch.
        """
        return training_loader(
            self.plan.members, dataset, batch_size=batch_size, collate=collate, generator=generator,
            drop_last=drop_last, pin_memory=self.device.type == "cuda",
        )  # fmt: skip

    def averaged(self) -> ExitStack:
        """Put averaged weights in place where the plan has them; leaving puts those that train back, bitwise."""
        with ExitStack() as stack:
            for member in self.plan.members:
                stack.enter_context(member.evaluating(self.state))
            stack.callback(self._leave_averaged)
            self.averaged_depth += 1
            return stack.pop_all()

    def _leave_averaged(self) -> None:
        self.averaged_depth -= 1

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate within: eval mode, no gradients, averaged weights, the plan's forward (mixed precision, say)."""
        import torch

        model = self.state.model
        was_training, outer = model.training, model.forward
        with self.averaged(), torch.no_grad():
            model.eval()
            model.forward = self._eval_forward
            try:
                yield
            finally:
                model.forward = outer
                model.train(was_training)

    def save(self, folder: Path) -> int:
        """Write what trained, the new parts and the plan to `folder`; give the files' size in bytes.

        `strategies.load` and `load_plain` read it. `PlanError` after `merge`, and for a new part that is quantised.
        """
        self._refuse_merged()
        with self.averaged():
            layout, plan, moved = self.context.layout, self.plan, keep_moved(self)
            return write(
                folder, self.full_state(), self.base, plan=str(plan), members=plan.canonical(), moved=moved,
                head=[*(layout.scopes["head"] or layout.new_parts)], **self._lr_overrides, seed=self.context.seed,
                total_steps=self.state.total_steps,
            )  # fmt: skip

    def full_state(self) -> dict[str, Tensor]:
        """Give what a fresh base lacks, name → tensor (not copied): what may train, new or added parts, buffers.

        `PlanError` for a new part that is quantised.
        """
        return self.engine.full_state(self.saved_names)

    def found(self) -> dict[str, str | int]:
        """Give facts for the record that only training shows, such as the number of micro-batches that fit."""
        return {name: fact for member in self.plan.members for name, fact in member.training_facts(self.state).items()}

    def skipped_steps(self) -> int:
        """Count the updates that fp16's loss scaler skipped, as gradients were not finite; waits for the device."""
        return self.engine.skipped_steps()

    def merge(self, outputs: Callable[[nn.Module], Tensor] | None = None) -> Merged:
        """Add the adapters to the weights below them, in place: `model` is a plain one afterwards, free to train whole.

        Leaves it in evaluation mode. Gives the number of layers and the drift of their outputs, relative; with
        `outputs(model)`, a tensor, also its largest absolute change. `PlanError` if adapters cannot be merged.
        Merging: Hu et al., LoRA, 2021, section 4.1, https://arxiv.org/abs/2106.09685
        """
        with self.evaluating():  # the weights that this plan evaluates and saves are merged
            merged = merge_adapters(self.model, outputs)
            evaluated = [(p, p.detach().clone()) for group in self.optimizer.param_groups for p in group["params"]]
        settle(self.model, evaluated)
        self.optimizer.state.clear()  # nothing trains on from here
        self._merged = True
        vars(self.model).pop(PLAN_ATTRIBUTE, None)
        self.model.eval()
        return merged

    def counts(self) -> dict[str, int]:
        """Count parameters (elements; 4-bit ones unpacked): trainable, total, and both for each scope."""
        return count_parameters(self.model, self.context.layout, self.trained)

    def memory(self) -> dict[str, int]:
        """Give bytes of weights, gradients and optimizer state (AdamW's before the first update); no activations."""
        return memory_by_kind(self.model, self.optimizer)

    def describe(self) -> str:
        """Give a table as text: what trains, rates, memory, adapted layers, what was left, how the head was found."""
        layout, members = self.context.layout, self.plan.members
        groups = zip(self.optimizer.param_groups, self._peak_lrs, strict=True)
        rates = sorted({(group["name"], peak) for group, peak in groups})
        first = ["; ".join([f"plan {self.plan} on {self.device}", head_line(self.model, layout), *self.losses.notes()])]
        first += [f"  base       {self.base_note}"] if self.base_note else []
        numbers = table(self.counts(), self.memory(), rates, expected=not self.optimizer.state)
        left = layer_lines(self.model, layout, members, self.context.notes)
        left += storage_lines(self.context.member_state)
        return "\n".join([*first, numbers, *left, *self.losses.check.lines()])

    def adapted_layers(self) -> dict[str, str]:
        """Give name → kind of every layer with an adapter, such as `Linear → lora`."""
        return adapted_layers(self.model, self.context.layout, self.plan.members)

    def _refuse_merged(self) -> None:
        if self._merged:
            raise PlanError("merged: adapters are part of the weights now; save the model itself (model.state_dict())")


def _run_member(member: Strategy, run: Callable[[int], Tensor], state: State, size: int) -> Tensor:
    """Let a member decide on the passes of `size` examples."""
    return member.run_micro_batches(run, size, state)
