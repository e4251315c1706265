"""attention — choose the kernel that computes attention.

What: `math` is torch's reference (the whole matrix of scores, in plain operations), `flash` and `efficient` compute it
tile by tile without keeping it, `cudnn` is Nvidia's own; `eager` is transformers' Python code for it.
Why it helps: it does not make anything faster by itself. Torch already picks the fastest kernel that fits; naming a
slower one shows what that choice is worth, and `math` tells whether a fused kernel is to blame for odd numbers.
What it costs: `math` and `eager` keep batch × heads × length² scores per layer for the backward pass. `flash` takes no
mask on GPUs and no dropout on CPUs, and says so. When not to use it: in any run that should be fast.
Paper: Dao et al., FlashAttention, 2022, https://arxiv.org/abs/2205.14135; efficient: Rabe and Staats, Self-attention
Does Not Need O(n²) Memory, 2021, https://arxiv.org/abs/2112.05682

`nn.MultiheadAttention` asked for its weights (`need_weights=True`, its default) uses no such kernel and is not changed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.errors import PlanError
from strategies.layout import EVERYTHING
from strategies.protocol import Context, Kind, Strategy
from strategies.structure.blocks import disable_fast_path, repeated_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

FLASH_GPU = (8, 0)
KERNELS = {"math": "MATH", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION", "cudnn": "CUDNN_ATTENTION"}
TORCHS = "sdpa"  # transformers' name for torch's attention function
ONLY_GPU = ("efficient", "cudnn")
ONLY_16_BIT = ("flash", "cudnn")  # on GPUs
KERNEL_ERRORS = (
    "No viable backend",
    "No available kernel",
)  # torch's words for "this kernel does not take these inputs"


@contextmanager
def chosen_kernel(backend: str) -> Iterator[None]:
    """Allow this one kernel; inputs it does not take are an error that says what to look at."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(value=False)  # has its own kernel in evaluation
        with sdpa_kernel(getattr(SDPBackend, KERNELS[backend])):
            yield
    except RuntimeError as problem:
        if not any(words in str(problem) for words in KERNEL_ERRORS):
            raise
        raise PlanError(
            f"attention: the kernel {backend!r} does not take this model's inputs (a mask on a GPU, dropout in "
            "attention, 32-bit numbers or an odd head size are the usual reasons); choose backend='math', or leave "
            "attention out"
        ) from problem
    finally:
        torch.backends.mha.set_fastpath_enabled(value=fast_path)


def block_with_kernel(backend: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Give a block's `forward` with this one kernel, also when it runs again in the backward pass or is compiled."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kernel = getattr(SDPBackend, KERNELS[backend])

    @wraps(forward)
    def with_kernel(*arguments: Any, **options: Any) -> Any:
        with sdpa_kernel(kernel):
            return forward(*arguments, **options)

    return with_kernel


def forward_with_kernel(backend: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Give `forward`, run with this one kernel."""

    @wraps(forward)
    def with_kernel(*arguments: Any, **options: Any) -> Any:
        with chosen_kernel(backend):
            return forward(*arguments, **options)

    return with_kernel


def attention_modules(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Give the transformers models, and torch's own attention layers, that use torch's attention function."""
    from torch import nn

    theirs = [part for part, used in implementations(model) if used == TORCHS]
    return theirs, [part for part in model.modules() if isinstance(part, nn.MultiheadAttention)]


def implementations(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Give the transformers models, outermost first, and the name of the code that computes each one's attention."""
    from transformers import PreTrainedModel

    theirs = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    return [(part, str(part.config._attn_implementation)) for part in theirs]  # noqa: SLF001


def why_no_kernel(model: nn.Module) -> str:
    """Say why a model without attention by torch's function has none, and what to do about it."""
    found = implementations(model)
    if not found:
        return (
            f"{type(model).__name__} has no transformers model and no encoder layer of torch in it (attention written "
            "out in a model of one's own is not seen); leave it out"
        )
    part, used = found[0]
    if part._supports_sdpa:  # noqa: SLF001
        return (
            f"{type(part).__name__} computes attention by its {used!r} code, which has no kernels to choose: call "
            f"model.set_attn_implementation({TORCHS!r}) before, or leave it out"
        )
    return (
        f"transformers' {type(part).__name__} has no attention by torch's function (its code, if it has any, is "
        f"{used!r}); leave it out"
    )


@final
@dataclass(frozen=True, kw_only=True)
class Attention(Strategy):
    """Attention of the whole model by one kernel."""

    name: ClassVar[str] = "attention"
    kind: ClassVar[Kind] = "speed"
    stage: ClassVar[int] = 35  # before checkpointing, so that what is computed twice uses the same kernel twice
    slots: ClassVar[frozenset[str]] = frozenset({"attention"})
    packages: ClassVar[tuple[str, ...]] = ("transformers",)

    backend: Literal["eager", "math", "flash", "efficient", "cudnn"] = "math"

    def unavailable(self, device: torch.device | str) -> str | None:
        """Say which kernels the device does not have."""
        missing = super().unavailable(device)
        if missing or str(device).partition(":")[0] != "cuda":
            gpu_only = f"the kernel {self.backend!r} runs on GPUs only; a CPU has 'math', 'flash' and 'eager'"
            return missing or (gpu_only if self.backend in ONLY_GPU else None)
        import torch

        capability = torch.cuda.get_device_capability(device)
        if self.backend in ONLY_16_BIT and capability < FLASH_GPU:
            return f"{self.backend!r} needs compute capability 8.0 or newer, this GPU has {capability}: try 'efficient'"
        return None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Look for attention; switch transformers' code, or wrap the blocks."""
        theirs, own = attention_modules(model)
        if self.backend == "eager":
            if not theirs:
                raise PlanError(f"attention: 'eager' would change nothing: {self._why_not_eager(model)}; leave it out")
            for part in theirs:
                part.set_attn_implementation("eager")  # type: ignore[operator]
            return
        if not theirs and not own:
            raise PlanError(f"attention: would do nothing, {why_no_kernel(model)}")
        if context.device.type == "cuda" and self.backend in ONLY_16_BIT and context.facts.get("precision") == "fp32":
            raise PlanError(f"attention: {self.backend!r} computes in 16 bits only: add amp, or choose 'efficient'")
        disable_fast_path(model, everywhere=True)
        for roots in context.layout.groups(model, EVERYTHING).values():
            for block in repeated_blocks(model, roots).values():
                block.forward = block_with_kernel(self.backend, block.forward)

    def _why_not_eager(self, model: nn.Module) -> str:
        """Say why no part of a model could be switched to transformers' own code."""
        used = {name for _, name in implementations(model)}
        there = f"its transformers models run {' and '.join(map(repr, sorted(used)))} already"
        return there if used else "it is transformers' own code, and there is no transformers model in this one"

    def wrap_forward(self, forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
        """Choose the kernel in training and evaluation."""
        del context
        return forward if self.backend == "eager" else forward_with_kernel(self.backend, forward)
