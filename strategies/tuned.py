"""What `Plan.apply` gives back: a model made ready, and one call per optimizer update.

`step` is the whole training loop's body; it never reads a value back from the device after the first update.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from strategies.describing import count_parameters, memory_by_kind, table
from strategies.errors import PlanError
from strategies.merging import Merged, merge_adapters
from strategies.optimization import MAX_NORM, multiplier, weights_members
from strategies.protocol import FROZEN, Context, State
from strategies.selfcheck import GraphWatch, check_gradients, check_loss, check_scopes
from strategies.storage import write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from strategies.engine import Engine
    from strategies.plan import Plan

    LossFunction = Callable[[nn.Module, Any], Tensor]


MARK = "_tunematrix_plan"  # on a model that a plan has changed


class Tuned:
    """A model under a plan, with its optimizer; made by `Plan.apply`."""

    def __init__(
        self, plan: Plan, engine: Engine, context: Context, state: State, *, own: frozenset[str], setup_seconds: float,
        given: Mapping[str, float | None],
    ) -> None:  # fmt: skip
        self.plan, self.engine, self.context, self.state = plan, engine, context, state
        self.own = own  # names of what a fresh base lacks: all that may train, new parts, what the plan added
        self.trained = frozenset(name for name, p in state.model.named_parameters() if p.requires_grad)
        self.setup_seconds = setup_seconds
        self._given = given  # rates in place of the plan's
        self._peaks = [float(group["lr"]) for group in state.optimizer.param_groups]
        self._checked = self._merged = False
        self._eval_forward = self._wrapped(state.model.forward)

    @property
    def model(self) -> nn.Module:
        """The model to call; the same object that was given to `apply`."""
        return self.state.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer over everything that trains."""
        return self.state.optimizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.state.device

    def step(self, loss_fn: LossFunction, batch: Any) -> Tensor:
        """Do one optimizer update on `batch` and give the detached loss, still on the device."""
        self._refuse_merged()
        state, members = self.state, self.plan.members
        batch = to_device(batch, self.device)
        for member in members:
            batch = member.prepare_batch(batch, state)
        for member in members:
            member.before_step(state)
        watch = None if self._checked else GraphWatch(state.model, self.context.layout)
        try:
            loss = self._loss(loss_fn, batch)
        finally:
            if watch is not None:
                watch.close()
        self.engine.backward(loss)
        if not self._checked:
            self._check()
        self.engine.clip(MAX_NORM)
        share = multiplier(state.step, state.total_steps)
        set_rates(state.optimizer, [peak * share for peak in self._peaks])
        self.engine.update()
        for member in members:
            member.after_update(state)
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        return loss.detach()

    def loader(
        self,
        dataset: Any,
        *,
        batch_size: int,
        collate: Callable[..., Any],
        generator: torch.Generator,
        drop_last: bool = True,
    ) -> DataLoader[Any]:
        """Give a shuffled loader over `dataset`; its order comes from `generator` alone."""
        from torch.utils.data import DataLoader

        options: dict[str, Any] = {
            "dataset": dataset, "batch_size": batch_size, "collate_fn": collate, "generator": generator,
            "drop_last": drop_last, "shuffle": True, "num_workers": 0,
            "pin_memory": self.device.type == "cuda",
        }  # fmt: skip
        for member in self.plan.members:
            options = member.loader(options)
        return DataLoader(**options)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluate inside: eval mode, no gradients, the plan's forward (mixed precision and the like)."""
        import torch

        model = self.state.model
        was_training, outer = model.training, model.forward
        with ExitStack() as stack:
            for member in self.plan.members:
                stack.enter_context(member.evaluating(self.state))
            stack.enter_context(torch.no_grad())
            model.eval()
            model.forward = self._eval_forward
            try:
                yield
            finally:
                model.forward = outer
                model.train(was_training)

    def save(self, folder: Path) -> int:
        """Write what trained, the new parts and the plan; give the bytes written. `strategies.load` reads it."""
        self._refuse_merged()
        with ExitStack() as stack:
            for member in self.plan.members:
                stack.enter_context(member.evaluating(self.state))
            layout, plan = self.context.layout, self.plan
            facts = {"plan": str(plan), "members": plan.canonical(), "head": layout.scopes["head"][0]}
            steps = self.state.total_steps
            return write(folder, self.full_state(), **facts, **self._given, seed=self.context.seed, total_steps=steps)

    def full_state(self) -> dict[str, Tensor]:
        """Give what a fresh base lacks, by name: what may train, new parts, what the plan added, buffers."""
        return self.engine.full_state(self.own)

    def skipped_steps(self) -> int:
        """Count the updates that fp16's loss scaler skipped, as their gradients were not finite; synchronises."""
        return self.engine.skipped_steps()

    def merge(self, outputs: Callable[[nn.Module], Tensor] | None = None) -> Merged:
        """Add the adapters to the weights below them, in place: `model` is a plain one afterwards, free to train whole.

        Gives the number of layers and the drift; with `outputs(model)` also the change of the model's outputs.
        """
        before = self._evaluated(outputs)
        merged = merge_adapters(self.model)
        self._merged = True
        vars(self.model).pop(MARK, None)
        after = self._evaluated(outputs)
        if before is None or after is None:
            return merged
        return dataclasses.replace(merged, output_drift=float((after - before).abs().max()))

    def _evaluated(self, outputs: Callable[[nn.Module], Tensor] | None) -> Tensor | None:
        if outputs is None:
            return None
        with self.evaluating():
            return outputs(self.model)

    def counts(self) -> dict[str, int]:
        """Count parameters, 4-bit ones unpacked: trainable, total, and both for each scope."""
        return count_parameters(self.model, self.context.layout, self.trained)

    def memory(self) -> dict[str, int]:
        """Give the bytes of weights, gradients and optimizer state; activations depend on the batch."""
        return memory_by_kind(self.model, self.optimizer)

    def describe(self) -> str:
        """Give a table: what trains in each scope and how fast, memory by kind, and how the head was found."""
        layout = self.context.layout
        rates = sorted(
            {(group["name"], peak) for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True)}
        )
        tied = layout.tied_head(self.model)
        note = f"; tied to {tied}, so it trains as that does" if tied else ""
        first = f"plan {self.plan} on {self.device}; head: {layout.scopes['head'][0]} ({layout.origin}{note})"
        return f"{first}\n{table(self.counts(), self.memory(), rates, expected=not self.optimizer.state)}"

    def _wrapped(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        for member in self.plan.members:
            forward = member.wrap_forward(forward, self.context)
        return forward

    def _loss(self, loss_fn: LossFunction, batch: Any) -> Tensor:
        """Compute the loss under the plan's wrappers, and add what members add."""
        loss: Tensor = self._wrapped(loss_fn)(self.state.model, batch)
        if not self._checked:
            check_loss(loss)
        for member in self.plan.members:
            term = member.extra_loss(self.state)
            loss = loss if term is None else loss + term
        return loss

    def _refuse_merged(self) -> None:
        if self._merged:
            raise PlanError(
                "merged: the adapters are part of the weights now; save the model itself (model.state_dict())"
            )

    def _check(self) -> None:
        """Check once, after the first backward pass."""
        weights = weights_members(self.plan.members)
        asked = [member.where() for member in weights if FROZEN not in member.capabilities()]
        check_scopes(self.state.model, self.context.layout, asked)
        check_gradients(self.engine.named_gradients(), finite=not self.engine.scaler.is_enabled())
        self._checked = True


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Set the learning rate of each group; some optimizers keep it in a tensor."""
    import torch

    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def to_device(batch: Any, device: torch.device) -> Any:
    """Move every tensor of a batch: tensors, mappings, dataclasses, lists and tuples of them."""
    import torch

    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [part.name for part in dataclasses.fields(batch)]
        return dataclasses.replace(batch, **{name: to_device(getattr(batch, name), device) for name in names})
    if type(batch) in (list, tuple):
        return type(batch)(to_device(part, device) for part in batch)
    return batch
