"""A child that does not outlive its parent, whatever ends the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

OWNER: Final = "TUNEMATRIX_OWNER"  # variable of a fresh interpreter: the process id of who started it
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def end_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends (Linux; elsewhere nothing happens).

    parent: process id of who started it. Where that one is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + number)
