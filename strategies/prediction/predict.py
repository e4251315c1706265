"""What a plan will need, before anything runs: memory by kind and operations of an update, on tensors without values.

The plan is applied and stepped by the code that trains, on fake tensors: shapes and types are those of the run, while
nothing is allocated or computed, so a model of any size is looked at in seconds on any machine. The model is built on
`meta`, quantised layers stand in for themselves (`Strategy.stand_in`), and whoever reads a value gets 1.
What happens inside kernels is not seen, and `torch.compile` is not run: a compiled plan is predicted as its eager twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import flop_registry

from strategies.errors import PlanError
from strategies.execution.feed import Feed, MicroBatch, as_feed, map_tensors, volume
from strategies.prediction.storage_tracker import MEMORY_KINDS, StorageTracker, mark_resident, tracking
from strategies.training.apply import finish, overridden, place, transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strategies.language.plan import Plan
    from strategies.layout import HeadChoice
    from strategies.training.losses import LossFunction
    from strategies.training.tuned import Tuned

UPDATE_HOOKS = ("engine", "before_step", "after_update")  # hooks that may matter to the state an update makes


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one update needs: bytes by kind at the peak, operations, and how many parameters train."""

    by_kind: Mapping[str, int]
    flops: int
    trainable_parameters: int
    total_parameters: int

    @property
    def peak_bytes(self) -> int:
        """Bytes at the peak."""
        return sum(self.by_kind.values())


class UnpredictableError(RuntimeError):
    """A plan that cannot be run through on tensors without values."""


class FakeValueMode(TorchDispatchMode):
    """Answers who reads a value, where there are none: 1 or True; what is compared is equal, what is asked for is all.

    Where masks choose rows, that is the most there can be.
    """

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        answer = FAKE_VALUES.get(func)
        return answer(args[0]) if answer else func(*args, **(kwargs or {}))


def _one(tensor: Tensor) -> bool | float:
    return True if tensor.dtype == torch.bool else 1.0 if tensor.dtype.is_floating_point else 1


FAKE_VALUES: dict[Any, Callable[[Tensor], Any]] = {
    torch.ops.aten._local_scalar_dense.default: _one,  # noqa: SLF001 - how torch names `item()`
    torch.ops.aten.equal.default: lambda _: True,
    torch.ops.aten.nonzero.default: lambda mask: torch.empty((mask.numel(), mask.ndim), dtype=torch.int64),
}


class FlopStorageTracker(StorageTracker):
    """A tracker that counts operations, too."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def _as_unpredictable() -> Iterator[None]:
    try:
        yield
    except PlanError:
        raise
    except Exception as error:  # whatever an operation without values raises, deep in somebody's library
        first = (str(error).splitlines() or [""])[0]
        raise UnpredictableError(f"not without values: {type(error).__name__}: {first}") from error


def predict(
    plan: Plan, make_model: Callable[[], nn.Module], loss_fn: LossFunction, batches: Sequence[Any], *,
    device: torch.device | str = "cpu", head: HeadChoice = "auto", total_steps: int | None = None,
    distinct: Mapping[str, int] | None = None,
) -> list[Prediction]:  # fmt: skip
    """Predict one update on each of `batches` (what `Tuned.step` takes).

    make_model: builds the model; it is called under `torch.device("meta")`, so no weights are made or read.
    distinct: how many different keys the items have by scope, for what is kept of each.
    Raises `PlanError` where the plan cannot be, `UnpredictableError` where torch cannot do it without values.
    """
    with _as_unpredictable(), torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            model = make_model()
        context = transform(plan, model, device=device, head=head, total_steps=total_steps)
        fake_values: Any = FakeValueMode  # untyped in torch
        mode = FakeTensorMode(allow_non_fake_inputs=True)  # libraries keep tensors of indices
        with mode, fake_values():
            for member in plan.members:
                member.simulate_move(model, context)
            to_fake_tensors(model, context.device)
            place(plan, model, context)
            tuned = finish(plan, model, context)
            tuned.engine.scaler = torch.amp.GradScaler(context.device.type, enabled=False)  # else it asks for overflows
            tuned.losses.check.finish()  # the check of the first updates reads values, too
            _allocate_optimizer_state(tuned, loss_fn, batches[0], mode)
            return [_predict_update(tuned, loss_fn, batch, mode, distinct or {}) for batch in batches]


def _allocate_optimizer_state(tuned: Tuned, loss_fn: LossFunction, batch: Any, mode: FakeTensorMode) -> None:
    """Have the optimizer make its state: from gradients alone, or in an update where members take part in one."""
    if not any(overridden(member, UPDATE_HOOKS) for member in tuned.plan.members):
        _allocate_gradients(tuned)
        tuned.engine.update()
        tuned.optimizer.zero_grad(set_to_none=True)
    if not tuned.optimizer.state:
        _step(tuned, loss_fn, batch, mode)


def _allocate_gradients(tuned: Tuned) -> None:
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter, requires_grad=False)


def _predict_update(
    tuned: Tuned, loss_fn: LossFunction, batch: Any, mode: FakeTensorMode, distinct: Mapping[str, int]
) -> Prediction:
    choosing = any(overridden(member, ["select_examples"]) for member in tuned.plan.members)  # not in every update
    steps = [_step(tuned, loss_fn, batch, mode) for _ in range(1 + choosing)]
    feed, tracker = max(steps, key=lambda step: step[1].peak_bytes)
    counts = tuned.counts()
    by_kind = {kind: tracker.peak_by_kind[kind] for kind in MEMORY_KINDS}
    by_kind["weights"] += sum(member.cache_bytes(tuned.state, distinct) for member in tuned.plan.members)
    return Prediction(
        by_kind=by_kind, flops=round(tracker.flops * feed.flops_scale),
        trainable_parameters=counts["trainable_parameters"], total_parameters=counts["total_parameters"],
    )  # fmt: skip


def _step(
    tuned: Tuned, loss_fn: LossFunction, batch: Any, mode: FakeTensorMode
) -> tuple[SingleMicroBatchFeed, FlopStorageTracker]:
    tracker = mark_resident(tuned, FlopStorageTracker())
    feed = SingleMicroBatchFeed(batch, mode, tuned, tracker)
    with tracking(tuned, tracker):
        tuned.step(loss_fn, feed)
    return feed, tracker


class SingleMicroBatchFeed(Feed):
    """A feed of fake tensors that shows one pass of an update; where there are more, the gradients are there already.

    Items are collated for real; what comes out is fake. `flops_scale`: all examples for each one shown.
    """

    def __init__(self, batch: Any, mode: FakeTensorMode, tuned: Tuned, tracker: StorageTracker) -> None:
        feed = as_feed(batch)

        def collate(items: Sequence[Any]) -> Any:
            with _disable_current_modes():
                made = feed.collate(items)
            return map_tensors(made, mode.from_tensor)

        super().__init__(feed.items, collate, rows=feed.rows)
        self._tuned, self._tracker = tuned, tracker
        self.flops_scale = 1.0

    def micro_batches(self, max_size: int) -> list[MicroBatch]:
        """Give the largest of the batches of at most `max_size` examples."""
        parts = super().micro_batches(max_size)
        if len(parts) > 1 and self.flops_scale == 1:
            _allocate_gradients(self._tuned)
            self._tracker.mark((p.grad for p in self._tuned.model.parameters() if p.grad is not None), "gradients")
        largest = max(parts, key=lambda part: volume(part.batch))
        self.flops_scale = len(self) / largest.size
        return [largest]


def to_fake_tensors(model: nn.Module, device: torch.device) -> None:
    """Replace parameters, buffers and tensors in dictionaries by fake ones on `device`, shared ones by the same."""
    known: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            known[id(tensor)] = made
        return known[id(tensor)]

    for module in model.modules():
        for held in vars(module).values():
            if isinstance(held, dict):  # of parameters, of buffers, of what adapters keep besides
                real = {key: t for key, t in held.items() if isinstance(t, Tensor) and not isinstance(t, FakeTensor)}
                held.update({key: fake(tensor) for key, tensor in real.items()})
