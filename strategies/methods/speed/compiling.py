"""compile — let torch compile the model into fused kernels.

What: each repeated block is compiled in place; equal blocks share one compilation (`regional=False` compiles the
whole model as one, and so does a model without repeated blocks).
Why it helps: fewer and fused kernels; 1.1–2× faster steps on GPUs, and less activation memory.
What it costs: 20 s to minutes before the first step, again for evaluation and for each new input shape; count
the epochs until that is won back. When not to use it: short runs, changing shapes, small models on CPU.
Paper: Ansel et al., PyTorch 2, 2024, https://doi.org/10.1145/3620665.3640366

Compiled in place (`module.compile()`): wrapping a model in `torch.compile` would rename all its parameters.
Checkpointing is applied before, so that the compiler sees what is to be computed twice.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

from strategies.methods.memory.recomputing import Recomputed
from strategies.protocol import Context, Kind, Strategy
from strategies.structure.blocks import all_blocks, called, disable_fast_path

if TYPE_CHECKING:
    import torch
    from torch import nn

OLDEST_GPU = (7, 0)
RECOMPILE_LIMIT = 64
RECOMPUTING = ("inductor", "aot_", "cudagraphs")  # beginnings of backends in whose graphs random numbers come back
# Warnings about what Dynamo itself does while tracing; torch hides or ignores them, but not where warnings are errors.
TRACING_NOISE = (
    "The .grad attribute of a Tensor",
    "<class 'torch.autograd.function.Function'> should not be inst",
    "`torch.jit.script_method` is deprecated",
)


def compile_in_place(module: nn.Module, *, mode: str | None, backend: str) -> None:
    """Compile one module at its first call; names and parameters stay as they are.

    Dynamo passes over code that lies in torch itself, such as `nn.TransformerEncoderLayer.forward`, without a word;
    one frame of our own around it lets it look inside. Inductor also gets the shape of that layer's evaluation
    fast path wrong (strides of `aten._transformer_encoder_layer_fwd`), so it is off in what is compiled.
    """
    disable_fast_path(module, everywhere=True)
    plain = module.forward

    @wraps(plain)
    def forward(*arguments: Any, **options: Any) -> Any:
        return plain(*arguments, **options)

    if type(module).__module__.startswith("torch."):
        module.forward = forward
    module.compile(mode=mode, backend=backend)


def recompute_outside(model: nn.Module, context: Context) -> None:
    """Keep a compiler out of what computes blocks a second time, but not out of the blocks.

    Graphs that run as they are would draw other dropout the second time.
    """
    import torch

    for kept in context.member_state.values():
        for name in kept.names if isinstance(kept, Recomputed) else ():
            block = model.get_submodule(name)
            block.forward = torch.compiler.disable(block.forward, recursive=False)


@final
@dataclass(frozen=True, kw_only=True)
class Compile(Strategy):
    """Compile repeated blocks (or, with `regional=False`, the model) with `mode` and `backend` of torch.compile."""

    name: ClassVar[str] = "compile"
    kind: ClassVar[Kind] = "speed"
    stage: ClassVar[int] = 50
    slots: ClassVar[frozenset[str]] = frozenset({"compiler"})
    packages: ClassVar[tuple[str, ...]] = ("torch._inductor.compile_fx",)
    trial: ClassVar[Mapping[str, Any]] = {"backend": "eager"}

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    regional: bool = True
    backend: str = "inductor"

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a C++ compiler on CPU and a GPU that Triton supports."""
        if self.backend != "inductor":
            return None
        if str(device).partition(":")[0] != "cuda":
            compiler = os.environ.get("CXX", "g++")
            return (
                None
                if shutil.which(compiler)
                else f"needs a C++ compiler, {compiler!r} was not found (apt install g++)"
            )
        import torch

        capability = torch.cuda.get_device_capability(device)
        return None if capability >= OLDEST_GPU else f"needs compute capability 7.0 or newer, this GPU has {capability}"

    def external_loop_settings(self, facts: Mapping[str, str | int]) -> Mapping[str, Any]:
        """Keep the other loop from doing it, too."""
        del facts
        return {"compiles": True}

    def place(self, model: nn.Module, context: Context) -> None:
        """Mark the modules; the compiler runs at their first call."""
        import torch

        known = torch.compiler.list_backends(exclude_tags=())
        self.require(self.backend in known, f"backend={self.backend!r} is none of {', '.join(known)}")
        # A stack may hold more kinds of layer than Dynamo's default of 8 variants; past that it would run uncompiled.
        torch._dynamo.config.recompile_limit = max(RECOMPILE_LIMIT, torch._dynamo.config.recompile_limit)  # noqa: SLF001
        for message in TRACING_NOISE:
            warnings.filterwarnings("ignore", message=message)
        if not self.backend.startswith(RECOMPUTING):
            recompute_outside(model, context)
        groups = context.layout.groups(model, None).values()
        blocks = [block for roots in groups for block in called(all_blocks(model, roots)).values()]
        for block in blocks if self.regional and blocks else [model]:
            compile_in_place(block, mode=None if self.mode == "default" else self.mode, backend=self.backend)
