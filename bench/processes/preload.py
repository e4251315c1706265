"""What a server imports before it forks, and whether it may fork then.

Forking is safe only where nothing runs beside the caller and no GPU was touched: see `environment.FORK_SAFE` and
https://docs.pytorch.org/docs/stable/notes/multiprocessing.html ("poison fork"). Packages that touch a GPU when they are
imported are left for the children where there is one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from strategies import catalogue
from strategies.quiet import quiet

# When they are imported where a GPU is: bitsandbytes asks for its compute capability, peft imports bitsandbytes.
TOUCH_GPU: Final = ("bitsandbytes", "peft", "torchao", "torch._inductor")


def preload(modules: Sequence[str]) -> None:
    """Import every method and what programs will need; what cannot be imported is left for the program to tell.

    A name with a class behind a colon, `package.module:Class`, also names what the class lists as its `packages`.
    """
    with quiet():
        catalogue()
        for name in modules:
            if has_gpu() and name.startswith(TOUCH_GPU):
                continue
            with contextlib.suppress(Exception):
                module, _, owner = name.partition(":")
                found = importlib.import_module(module)
                if owner:
                    preload(getattr(getattr(found, owner), "packages", ()))


def has_gpu() -> bool:
    """Whether NVIDIA's driver is here; asks no library."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def thread_names() -> list[str]:
    """Names of this process's threads."""
    found = []
    for file in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append(file.read_text().strip())
    return found


def unsafe() -> str:
    """Why this process must not fork, or nothing."""
    if len(names := thread_names()) > 1:
        return f"an import started threads ({', '.join(names[1:])})"
    return "an import touched the GPU" if cuda_touched() else ""


@functools.cache  # what is imported is imported before the first fork
def cuda_touched() -> bool:
    """Whether a fork of this process could not use CUDA any more: only a fork can tell."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    probe = os.fork()
    if probe == 0:
        touched = 1
        try:
            touched = int(torch.cuda._is_in_bad_fork())  # noqa: SLF001 - torch asks itself this, too
        finally:
            os._exit(touched)
    return os.waitstatus_to_exitcode(os.waitpid(probe, 0)[1]) != 0
