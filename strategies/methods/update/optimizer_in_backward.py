"""optimizer_in_backward — update each weight during the backward pass, and free its gradient at once.

What: as soon as a weight's gradient is complete the optimizer takes its step for this weight alone, and the gradient
goes; the update is over when the backward pass is. With any optimizer of a plan the result is that of usual training
without clipping, to the bit (but for random rounding, as in pure_bf16, which draws in another order).
Why it helps: the gradients of all weights never lie in memory together: up to 4 bytes less per trained weight, all of
them where weights outweigh activations.
What it costs: clipping: a total norm is known only when all gradients are, so none is limited here, whereas other plans
limit it to 1. One call of the optimizer for each tensor instead of one for all, which looks through all tensors each
time: felt where tensors are many and small. No accumulation over micro-batches, no fp16 (its loss scaler has to see all
gradients before a step), and no method that reads gradients after the update. When not to use it: gradients are a small
part of the memory (adapters), or a run is unstable without clipping.
Paper: Lv et al., Full Parameter Fine-tuning for Large Language Models with Limited Resources (LOMO), 2023,
https://arxiv.org/abs/2306.09782 (with plain gradient descent); with any optimizer: PyTorch's tutorial,
https://docs.pytorch.org/tutorials/intermediate/optimizer_step_in_backward_tutorial.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.errors import PlanError
from strategies.execution.engine import Engine
from strategies.protocol import CLIPPING, ENGINE, MICRO_BATCHES, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch
    from torch import Tensor, nn


class InBackward(Engine):
    """Takes the optimizer's step for each parameter in the backward pass.

    One optimizer holds all parameters and is shown one of them at a time. What it keeps in its groups, such as a count
    of updates, is each time what it was before the whole update.
    """

    def prepare(
        self, model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Let every parameter of the optimizer, also one that rests at times, report its gradient."""
        super().prepare(model, make_optimizer)
        self._running = False
        self._groups: list[dict[str, Any]] = []
        self._members = {id(group["params"]): set(group["params"]) for group in self.optimizer.param_groups}
        self._finite: dict[Tensor, Tensor] | None = {}  # of the first update, which is checked for its values
        self._reported: set[Tensor] = set()
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.register_post_accumulate_grad_hook(self._update_one)
        return self.model, self.optimizer

    def backward(self, loss: Tensor) -> None:
        """Compute gradients and update; a backward pass from elsewhere leaves gradients as usual."""
        self._groups = [dict(group) for group in self.optimizer.param_groups]
        self._reported.clear()
        self._running = True
        try:
            super().backward(loss)
        finally:
            self._running = False

    def _update_one(self, parameter: Tensor) -> None:
        if not self._running or parameter.grad is None:
            return
        self._reported.add(parameter)
        if self._finite is not None:
            self._finite[parameter] = parameter.grad.sum().mul(0)  # zero, or nan if anything is not finite
        for group, start in zip(self.optimizer.param_groups, self._groups, strict=True):
            group.clear()
            group.update(start, params=[parameter] if parameter in self._members[id(start["params"])] else [])
        self.optimizer.step()
        for group, start in zip(self.optimizer.param_groups, self._groups, strict=True):
            group["params"] = start["params"]
        parameter.grad = None

    def named_gradients(self) -> Iterator[tuple[str, Tensor | None]]:
        """Give what is left of an update's gradients: a number for each, one that is not finite where they were not.

        Values are looked at in the first update only.
        """
        left = self._finite if self._finite is not None else dict.fromkeys(self._reported, self._one)
        self._finite = None
        return ((name, left.get(p)) for name, p in self.model.named_parameters() if p.requires_grad)

    def clip(self, clip_gradients: Callable[[Sequence[Tensor]], object]) -> None:
        """Leave it: no gradient is there any more."""

    def update(self) -> None:
        """Leave it: every parameter has been updated."""


@final
@dataclass(frozen=True, kw_only=True)
class OptimizerInBackward(Strategy):
    """Each weight is updated when its gradient is there, without clipping; no gradient stays."""

    name: ClassVar[str] = "optimizer_in_backward"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({ENGINE, MICRO_BATCHES, CLIPPING})

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> str:
        """Name what others have."""
        del facts
        return "leave it out: that loop takes the step (without a plan: TrainingArguments(optim='adalomo'))"

    def engine(self, make: Callable[..., Engine]) -> Callable[..., Engine]:
        """Take the engine that updates in the backward pass."""
        del make

        def in_backward(device: torch.device, precision: str) -> Engine:
            if precision == "fp16":
                raise PlanError(
                    "optimizer_in_backward: fp16's loss scaler must see all gradients before a step; take "
                    "amp(dtype='bf16') where the device has it, or leave one of the two out"
                )
            return InBackward(device, precision)

        return in_backward
