"""auto_batch — find out by trying how many examples fit in memory at a time.

What: an update starts with its whole batch in one pass (or `start` examples at a time). Where memory does not suffice,
its gradients are cleared, the random state goes back to where it was, and the whole update is done again with half as
many; what fitted is kept for the updates that follow. The batch size of the plan stays what it is.
Why it helps: the fewest passes that fit, without trying by hand; one plan for large and small devices.
What it costs: each halving wastes a part of one update. When not to use it: the whole batch fits, or results must not
depend on the device (dropout draws other numbers for another division): take `accumulate` with the number this found,
`grad_accumulation` in the record.
Paper: Smith et al., Don't Decay the Learning Rate, Increase the Batch Size, 2017, https://arxiv.org/abs/1711.00489
(what matters is the batch of an update, which this leaves alone).

Exact where `accumulate` is, and refused where that is. Found is the largest half, quarter, … of the batch that fits,
never a larger one again. Memory that runs out elsewhere, when the optimizer makes its state, say, is no reason to
divide and is raised. On Linux a host that is out of memory kills processes without an exception unless a limit is set
(`ulimit -v`), so that on a CPU this rarely has something to catch.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.errors import is_out_of_memory
from strategies.execution.random_state import random_state, restore_random
from strategies.options import Count
from strategies.protocol import MICRO_BATCHES, Kind, State, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

NOT_EVEN_ONE = "auto_batch: a single example at a time does not fit; take a smaller model, checkpointing or amp"


@dataclass
class BatchLimit:
    """What updates so far have shown: the most examples to pass at a time (`None`: all), and the passes of the last."""

    max_size: int | None
    passes: int = 1


@final
@dataclass(frozen=True, kw_only=True)
class AutoBatch(Strategy):
    """As many examples at a time as fit, `start` at most."""

    name: ClassVar[str] = "auto_batch"
    kind: ClassVar[Kind] = "data"
    stage: ClassVar[int] = 70
    slots: ClassVar[frozenset[str]] = frozenset({MICRO_BATCHES})
    needs_items: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {"start": 4}

    start: Count | None = None

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return (
            "take accumulate(n=…) with the number that it finds in our own loop: "
            "TrainingArguments(auto_find_batch_size=True) would shrink the update's batch and start again"
        )

    def run_micro_batches(self, run: Callable[[int], Tensor], size: int, state: State) -> Tensor:
        """Try, and halve until it fits."""
        limit = state.member_state.setdefault(self, BatchLimit(self.start))
        snapshot = Snapshot(state.model, state.device)
        while True:
            max_size = min(size, limit.max_size or size)
            loss = self._try_size(run, max_size)
            if loss is not None:
                limit.passes = -(-size // max_size)
                return loss
            snapshot.restore()
            limit.max_size = -(-max_size // 2)

    def _try_size(self, run: Callable[[int], Tensor], max_size: int) -> Tensor | None:
        """Pass all examples; `None` where memory did not suffice. What the attempt held is gone on return."""
        try:
            return run(max_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if max_size == 1:
                note = getattr(error, "add_note", None)  # Python 3.11
                if note:
                    note(NOT_EVEN_ONE)
                raise
            traceback.clear_frames(error.__traceback__)  # their locals hold the graph
        return None

    def state_dict(self, state: State) -> Any:
        """Give what fitted."""
        limit: BatchLimit | None = state.member_state.get(self)
        return limit and [limit.max_size, limit.passes]

    def load_state_dict(self, state: State, saved: Any) -> None:
        """Start from what fitted."""
        if saved:
            state.member_state[self] = BatchLimit(*saved)

    def training_facts(self, state: State) -> dict[str, str | int]:
        """Give the number of passes of the last update."""
        limit: BatchLimit | None = state.member_state.get(self)
        return {"grad_accumulation": limit.passes} if limit else {}


class Snapshot:
    """What an attempt changes beside gradients, as it was before: random states, and statistics of batch norms."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model, self._device = model, device
        self._random = random_state(device)
        self._statistics = [(buffer, buffer.clone()) for buffer in _statistics(model)]

    def restore(self) -> None:
        """Clear what the attempt left: gradients, memory that is cached, numbers that were drawn or counted."""
        import torch

        self._model.zero_grad(set_to_none=True)
        restore_random(self._random, self._device)
        for buffer, old in self._statistics:
            buffer.copy_(old)
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)  # what did not fit is not what the recipe needs


def _statistics(model: nn.Module) -> list[Tensor]:
    """Give the buffers of batch norms that count in training."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.training]
    return [buffer for part in norms for buffer in part.buffers(recurse=False)]
