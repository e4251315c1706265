"""What users of this package can do wrong, as exceptions whose text names the alternatives.

`PlanError` is a `ValueError`: it is about the words or values somebody typed. `SelfCheckError` says that
training would have gone wrong silently (a tower without gradients, an adapter that nothing calls).
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class PlanError(ValueError):
    """A plan, an option or a scope that cannot be; the message says what can."""


class SelfCheckError(RuntimeError):
    """The first updates showed that something asked for does not train, or is not given what it needs."""


MAX_SHOWN = 12
# How CUDA libraries and torch's CPU allocator say it.
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def closest_first(word: str, known: Iterable[str]) -> str:
    """The `known` words most like `word`, closest in front: `amp, compile, …`."""
    ranked = sorted(known, key=lambda other: (-difflib.SequenceMatcher(None, word, other).ratio(), other))
    return ", ".join([*ranked[:MAX_SHOWN], *["…"][: len(ranked) > MAX_SHOWN]]) or "(none)"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception means out of memory, on the GPU or on the host.

    Besides `torch.OutOfMemoryError` and `MemoryError`, CUDA libraries and torch's CPU allocator raise `RuntimeError`.
    """
    import torch

    told = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return told or isinstance(error, torch.OutOfMemoryError | MemoryError)
