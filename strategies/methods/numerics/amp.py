"""amp — compute in 16 bits where that is safe, keep the weights in 32.

What: autocast in training and evaluation: bf16, or fp16 with a loss scaler on GPUs without native bf16.
Why it helps: matrix products run 2–8× faster on tensor cores and most activations take half the memory.
What it costs: 8 (bf16) or 11 (fp16) bits of precision, and casts, which small models feel; weights, gradients
and optimizer state stay as large as before. When not to use it: GPUs without tensor cores, CPUs without bf16
instructions: on one of those a step of the suite's own model took 2.7 times as long in bf16 and 14 times in fp16
(`python performance/step_time.py full "amp(dtype='bf16')" "amp(dtype='fp16')"`). A GPU's *emulated* bf16 (T4) does not
count as native.
Paper: Micikevicius et al., Mixed Precision Training, 2017, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.errors import PlanError
from strategies.execution.engine import torch_dtype
from strategies.execution.mixed_types import autocast
from strategies.protocol import Context, Kind, Strategy
from strategies.structure.layers.half_precision import is_half

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn


@cache
def native_bf16(device: str) -> bool:
    """Say whether a device type is not slower with bf16 than with fp16: GPUs that only emulate it are."""
    if device != "cuda":
        return True
    import torch

    supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return supported


@final
@dataclass(frozen=True, kw_only=True)
class Amp(Strategy):
    """Mixed precision; `dtype` is "bf16" or "fp16", by default what the device does best."""

    name: ClassVar[str] = "amp"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 30
    slots: ClassVar[frozenset[str]] = frozenset({"precision"})

    dtype: Literal["bf16", "fp16"] | None = None

    def unavailable(self, device: torch.device | str) -> str | None:
        """Refuse bf16 where a GPU only emulates it; CPUs may try both."""
        kind = str(device).partition(":")[0]
        if self.dtype == "bf16" and kind == "cuda" and not native_bf16(kind):
            return "this GPU only emulates bf16, which is slow: use fp16"
        return super().unavailable(device)

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give the precision that this device will compute in."""
        return {"precision": self.dtype or ("bf16" if native_bf16(str(device).partition(":")[0]) else "fp16")}

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any]:
        """Let the other loop do it."""
        return {"precision": facts["precision"]}

    def place(self, model: nn.Module, context: Context) -> None:
        """Check the model's types: autocast knows 32 bits and one type of 16, the loss scaler trains 32 bits only."""
        import torch

        precision = str(context.facts["precision"])
        halves = {name: p for name, p in model.named_parameters() if is_half(p)}
        other = next((name for name, p in halves.items() if p.dtype != torch_dtype(precision)), None)
        if other is not None:
            kind = {torch.float16: "fp16"}.get(halves[other].dtype, "bf16")
            raise PlanError(
                f"amp: {other!r} is in {halves[other].dtype} and amp computes in {precision}, which do not mix: take "
                f"amp(dtype={kind!r}), or load the model in float32 (model.float())"
            )
        if precision == "fp16" and (trained := next((name for name, p in halves.items() if p.requires_grad), None)):
            raise PlanError(f"amp: {trained!r} trains in float16; load the model in float32 (model.float())")

    def wrap_forward(self, forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
        """Run `forward` under autocast."""
        dtype = torch_dtype(str(context.facts["precision"]))

        def autocast_forward(*arguments: Any, **options: Any) -> Any:
            with autocast(self.name, context.device, dtype):
                return forward(*arguments, **options)

        return autocast_forward
