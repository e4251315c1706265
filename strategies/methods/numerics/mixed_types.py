"""What autocast leaves to the model: operations that take no two number types, told in one line with their place.

Autocast casts what goes into products and convolutions; an operation that it does not know (`index_add_`, a mask filled
with the least float32) may then meet a 16-bit and a 32-bit tensor, or a number too large for 16 bits, and fails.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Torch's words for it.
WORDS: Final = (
    "expected scalar type", "must have the same dtype", "have the same dtype", "dtypes match", "same scalar type",
    "without overflow", "mixed dtype", "dtype mismatch",
)  # fmt: skip


@contextmanager
def naming_mixed_types(word: str) -> Iterator[None]:
    """Surround a forward pass under autocast; its errors about number types become a `PlanError` of the word `word`."""
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
