"""What autocast leaves to the model: operations that take no two number types, told in one line with their place.

Autocast casts what goes into products and convolutions; an operation that it does not know (`index_add_`, a mask filled
with the least float32) may then meet a 16-bit and a 32-bit tensor, or a number too large for 16 bits, and fails, in the
forward pass or in the backward pass.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

# Torch's words for it.
WORDS: Final = (
    "expected scalar type", "must have the same dtype", "have the same dtype", "dtypes match", "same scalar type",
    "without overflow", "mixed dtype", "dtype mismatch",
)  # fmt: skip


@contextmanager
def naming_mixed_types(word: str) -> Iterator[None]:
    """Surround a pass under autocast, forward or backward; its errors become a `PlanError` of the word `word`."""
    try:
        yield
    except RuntimeError as problem:
        told = str(problem).splitlines()[0] if str(problem) else ""
        if not any(part in told for part in WORDS):
            raise
        raise PlanError(
            f"{word}: {_place(problem)} mixes number types in a way that autocast does not sort out ({told}); leave "
            f"{word} out, or cast there"
        ) from problem


@contextmanager
def autocast(word: str, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Compute in `dtype` where that is safe, as the member `word` of a plan asks.

    Torch's fused attention in evaluation takes no two types. It steps aside for a GPU's autocast only, so elsewhere it
    is turned off.
    """
    import torch

    fused = torch.backends.mha.get_fastpath_enabled()
    with naming_mixed_types(word), torch.autocast(device.type, dtype=dtype):
        if device.type == "cuda" or not fused or torch.compiler.is_compiling():
            yield
            return
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def _place(problem: BaseException) -> str:
    """Name the innermost module that is not torch's, from the frames of an error."""
    from torch import nn

    names, trace = ["the model"], problem.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and not type(owner).__module__.startswith("torch."):
            names.append(type(owner).__name__)
        trace = trace.tb_next
    return names[-1]
