"""pure_bf16 — weights, gradients and optimizer state all in 16 bits.

What: everything that amp keeps in float32 is bf16, too. AdamW computes each update in float32 and rounds the new
weight up or down at random, in proportion to what is nearer, so that small updates count on average.
Why it helps: weights, gradients and optimizer state take half the memory (8 bytes per trained weight, not 16), and
there are no casts between two copies.
What it costs: 8 bits of precision in the weights themselves and noise in each update; a run no longer repeats another
machine's to many digits. Without the random rounding only small weights would train: at lr 1e-4 fifty updates leave a
weight of 1.0 where it was. When not to use it: memory suffices for amp. On a CPU the optimizer runs uncompiled, as
compiling it there takes tens of seconds: slower than torch's own.
Paper: Zamirai et al., Revisiting BFloat16 Training, 2020, https://arxiv.org/abs/2010.06192

Batch norms stay in float32, as their running averages would stop moving just so, and so does what the model's class
keeps there (`_keep_in_fp32_modules`) and what is computed and not saved (rotary frequencies); quantised layers keep
their storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.execution.mixed_types import autocast
from strategies.execution.optimizer import WEIGHT_DECAY
from strategies.methods.numerics.amp import native_bf16
from strategies.protocol import OPTIMIZER, ROUNDING, Context, Kind, Strategy
from strategies.structure.layers.kept_precision import kept_in_float32

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn


def to_bf16(model: nn.Module) -> None:
    """Cast floating parameters and saved buffers in place.

    Batch norms stay as they are, and so do what is stored quantised, what the model's class keeps in float32, and
    buffers that are computed and not saved, such as the frequencies of rotary positions.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    names = kept_in_float32(model)
    kept = {id(t) for name, t in [*model.named_parameters(), *model.named_buffers()] if name in names}  # also if shared
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            continue
        unsaved = module._non_persistent_buffers_set  # noqa: SLF001 - torch has no other list
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            plain = type(tensor) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer} and name not in unsaved
            if plain and tensor.is_floating_point() and id(tensor) not in kept:
                tensor.data = tensor.data.to(torch.bfloat16)


def cast_inputs_of_norms(model: nn.Module) -> None:
    """Let norms in bf16 take float32 inputs, which a GPU's autocast sees to and a CPU's does not."""
    import torch

    for module in model.modules():
        norm = isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm) and module.weight is not None
        if norm and module.weight.dtype == torch.bfloat16:
            module.register_forward_pre_hook(_to_weights_type)


def _to_weights_type(norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].to(norm.get_parameter("weight").dtype), *inputs[1:]) if inputs else inputs


def rounding_adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make torchao's AdamW with stochastic rounding; on a CPU its step is not compiled."""
    import torch
    from torchao.optim import _AdamW

    optimizer: torch.optim.Optimizer = _AdamW(groups, weight_decay=WEIGHT_DECAY, bf16_stochastic_round=True)
    if all(parameter.device.type == "cpu" for group in groups for parameter in group["params"]):
        compiled = optimizer.step

        def step(_: torch.optim.Optimizer, *arguments: Any, **options: Any) -> Any:
            with torch.compiler.set_stance("force_eager"):
                return compiled(*arguments, **options)

        optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]
    return optimizer


@final
@dataclass(frozen=True, kw_only=True)
class PureBf16(Strategy):
    """The whole model in bf16, with stochastic rounding in the optimizer."""

    name: ClassVar[str] = "pure_bf16"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 30
    slots: ClassVar[frozenset[str]] = frozenset({"precision", OPTIMIZER})
    provides: ClassVar[frozenset[str]] = frozenset({ROUNDING})
    packages: ClassVar[tuple[str, ...]] = ("torchao",)

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need torchao's optimizer, and hardware that multiplies bf16."""
        missing = super().unavailable(device)
        if missing:
            return f"{missing} (plain AdamW would not move most weights in bf16: updates round to nothing)"
        kind = str(device).partition(":")[0]
        if kind == "cuda" and not native_bf16(kind):
            return "this GPU only emulates bf16: use amp(dtype='fp16')"
        return None

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give the precision."""
        del device
        return {"precision": "bf16"}

    def transform(self, model: nn.Module, context: Context) -> None:
        """Cast the model."""
        to_bf16(model)
        if context.device.type == "cpu":
            cast_inputs_of_norms(model)

    def wrap_forward(self, forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
        """Run under autocast, so that float32 inputs and batch norms' outputs meet bf16 weights."""
        import torch

        @wraps(forward)
        def with_autocast(*arguments: Any, **options: Any) -> Any:
            with autocast(self.name, context.device, torch.bfloat16):
                return forward(*arguments, **options)

        return with_autocast

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take AdamW with stochastic rounding."""
        del make
        return rounding_adamw
