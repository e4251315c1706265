"""The random numbers that training draws: where their streams are, and going back there.

One place, so that a checkpoint, an attempt that ran out of memory, a look at the loss and a prediction mean the same by
"as it was": Python's, numpy's (models mask spectra with it), torch's and the device's own stream.
"""

from __future__ import annotations

import random
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


def random_state(device: torch.device) -> dict[str, Any]:
    """Give where the streams are, as numbers and tensors: a part of every checkpoint."""
    import torch

    version, numbers, gauss = random.getstate()
    state: dict[str, Any] = {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()}
    state["gpu"] = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    if numpy := sys.modules.get("numpy"):
        name, keys, *rest = numpy.random.get_state()
        state["numpy"] = [name, keys.tolist(), *rest]
    return state


def restore_random(saved: dict[str, Any], device: torch.device) -> None:
    """Set the random states of Python, numpy, torch and, on a GPU, CUDA.

    saved: the entry "random" of what `load_checkpoint` gave. device: where the plan trains.
    See https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    import torch

    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(saved["torch"])
    if saved["gpu"] is not None:
        torch.cuda.set_rng_state(saved["gpu"], device)
    if "numpy" in saved:  # not in checkpoints of before
        import numpy as np

        np.random.set_state(tuple(saved["numpy"]))  # noqa: NPY002 - the stream that models draw from


def reseed(seed: int) -> None:
    """Start all streams anew."""
    import torch

    torch.manual_seed(seed)
    reseed_host(seed)


def reseed_host(seed: int) -> None:
    """Start Python's and numpy's streams anew."""
    random.seed(seed)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(seed)


def host_streams() -> object:
    """Give where Python's and numpy's streams are, to compare."""
    numpy = sys.modules.get("numpy")
    return random.getstate(), numpy and [str(part) for part in numpy.random.get_state(legacy=False).items()]


@contextmanager
def unchanged_random(device: torch.device) -> Iterator[None]:
    """Draw within as one likes: afterwards the streams are where they were."""
    saved = random_state(device)
    try:
        yield
    finally:
        restore_random(saved, device)
