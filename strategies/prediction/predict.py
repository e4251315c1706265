"""What a plan will need, before anything runs: memory by kind and operations of an update, on tensors without values.

The plan is applied and stepped by the code that trains, on fake tensors: shapes and types are those of the run, while
nothing is allocated or computed, so a model of any size is looked at in seconds on any machine. The model is built on
`meta`, quantised layers stand in for themselves (`Strategy.stand_in`); who reads a value is answered by `values.py`.
What happens inside kernels is not seen, and `torch.compile` is not run: a compiled plan is predicted as its eager twin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.flop_counter import flop_registry

from strategies.errors import PlanError
from strategies.execution.feed import Feed, MicroBatch, as_feed, map_tensors, volume
from strategies.execution.random_state import host_streams, reseed_host, unchanged_random
from strategies.prediction.frames import place_of_error
from strategies.prediction.storage_tracker import MEMORY_KINDS, StorageTracker, mark_resident, tracking
from strategies.prediction.values import ENDS, FakeValueMode, FiniteValues, UnpredictableError
from strategies.quiet import quiet
from strategies.training.apply import finish, overridden, place, transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from strategies.language.plan import Plan
    from strategies.layout import HeadChoice
    from strategies.training.losses import LossFunction
    from strategies.training.tuned import Tuned

    Step = tuple["SingleMicroBatchFeed", "FlopStorageTracker"]

HOST_DRAWS = 3  # tries where Python's or numpy's random numbers decide what is computed
UPDATE_HOOKS = ("engine", "before_step", "after_update")  # hooks that may matter to the state an update makes


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What one update needs: bytes by kind at the peak, operations, and how many parameters train.

    `notes`: why training may need less than this, where the model decides by values or at random.
    """

    by_kind: Mapping[str, int]
    flops: int
    trainable_parameters: int
    total_parameters: int
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """Bytes at the peak."""
        return sum(self.by_kind.values())


FLOPS: dict[str, Callable[..., int]] = {  # what torch's own counter lacks: products of groups of rows
    "aten._grouped_mm": lambda first, second, *_, **__: 2 * first.shape[-2] * first.shape[-1] * second.shape[-1],
    "transformers.grouped_mm_fallback": lambda first, second, *_, **__: 2 * first.numel() * second.shape[-1],
    "transformers.grouped_mm_fallback_backward": lambda first, second, *_, **__: 4 * first.numel() * second.shape[-1],
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
        if formula := flop_registry.get(func.overloadpacket) or FLOPS.get(str(func.overloadpacket)):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


@contextmanager
def _as_unpredictable() -> Iterator[None]:
    try:
        yield
    except (PlanError, UnpredictableError):
        raise
    except Exception as error:  # whatever an operation without values raises, deep in somebody's library
        first = (str(error).splitlines() or [""])[0]
        raise UnpredictableError(f"{place_of_error(error)} needs values: {type(error).__name__}: {first}") from error


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
    with quiet(), _as_unpredictable(), unchanged_random(torch.device("cpu")):
        with torch.device("meta"):
            model = make_model()
        context = transform(plan, model, device=device, head=head, total_steps=total_steps)
        fake = FakeTensorMode(allow_non_fake_inputs=True)  # libraries keep tensors of indices
        values: Any = FakeValueMode(fake)  # untyped in torch
        with fake, values, FiniteValues(values):
            for member in plan.members:
                member.simulate_move(model, context)
            to_fake_tensors(model, context.device)
            place(plan, model, context)
            tuned = finish(plan, model, context)
            tuned.engine.scaler = torch.amp.GradScaler(context.device.type, enabled=False)  # else it asks for overflows
            tuned.losses.check.finish()  # the check of the first updates reads values, too
            _allocate_optimizer_state(tuned, loss_fn, batches[0], values)
            return [_predict_update(tuned, loss_fn, batch, values, distinct or {}) for batch in batches]


def _allocate_optimizer_state(tuned: Tuned, loss_fn: LossFunction, batch: Any, values: FakeValueMode) -> None:
    """Have the optimizer make its state: from gradients alone, or in an update where members take part in one."""
    if not any(overridden(member, UPDATE_HOOKS) for member in tuned.plan.members):
        _allocate_gradients(tuned)
        tuned.engine.update()
        tuned.optimizer.zero_grad(set_to_none=True)
    if not tuned.optimizer.state:
        _step(tuned, loss_fn, batch, values)


def _allocate_gradients(tuned: Tuned) -> None:
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter, requires_grad=False)


def _predict_update(
    tuned: Tuned, loss_fn: LossFunction, batch: Any, values: FakeValueMode, distinct: Mapping[str, int]
) -> Prediction:
    choosing = any(overridden(member, ["select_examples"]) for member in tuned.plan.members)  # not in every update
    values.notes.clear()
    before = host_streams()
    steps = [_step(tuned, loss_fn, batch, values) for _ in range(1 + choosing)]
    chance = _steps_by_chance(partial(_step, tuned, loss_fn, batch, values), values, before)
    feed, tracker = max([*steps, *chance], key=lambda step: step[1].peak_bytes)
    flops = max(_flops(step) for step in [(feed, tracker), *chance])
    counts = tuned.counts()
    by_kind = {kind: tracker.peak_by_kind[kind] for kind in MEMORY_KINDS}
    by_kind["weights"] += sum(member.cache_bytes(tuned.state, distinct) for member in tuned.plan.members)
    return Prediction(
        by_kind=by_kind, flops=round(flops), trainable_parameters=counts["trainable_parameters"],
        total_parameters=counts["total_parameters"], notes=tuple(values.notes),
    )  # fmt: skip


def _steps_by_chance(step: Callable[[], Step], values: FakeValueMode, before: object) -> list[Step]:
    """Step again where random numbers decide what is computed: torch's at their other end, the host's drawn anew."""
    found = []
    if values.decided_by_draws:
        values.end = ENDS[1]
        found.append(step())
        values.end, values.decided_by_draws = ENDS[0], False
    if host_streams() != before:
        values.notes[f"Python or numpy draws random numbers: the most of {1 + HOST_DRAWS} tries"] = None
        for seed in range(HOST_DRAWS):
            reseed_host(seed)
            found.append(step())
    return found


def _flops(step: Step) -> float:
    feed, tracker = step
    return tracker.flops * feed.flops_scale


def _step(tuned: Tuned, loss_fn: LossFunction, batch: Any, values: FakeValueMode) -> Step:
    tracker = mark_resident(tuned, FlopStorageTracker())
    feed = SingleMicroBatchFeed(batch, values.to_fake, tuned, tracker)
    with tracking(tuned, tracker):
        tuned.step(loss_fn, feed)
    return feed, tracker


class SingleMicroBatchFeed(Feed):
    """A feed of fake tensors that shows one pass of an update; where there are more, the gradients are there already.

    Items are collated for real; what comes out is fake. `flops_scale`: all examples for each one shown.
    """

    def __init__(self, batch: Any, to_fake: Callable[[Tensor], Any], tuned: Tuned, tracker: StorageTracker) -> None:
        feed = as_feed(batch)

        def collate(items: Sequence[Any]) -> Any:
            with _disable_current_modes():
                made = feed.collate(items)
            return map_tensors(made, to_fake)

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
