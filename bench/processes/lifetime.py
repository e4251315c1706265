"""A child that does not outlive its parent, whatever ends the parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

OWNER: Final = "TUNEMATRIX_OWNER"  # variable of a fresh interpreter: the process id of who started it
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def end_with_parent(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent ends (Linux; elsewhere nothing happens).

    parent: process id of who started it. Where that one is gone already, this process ends at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(128 + number)


def end_as(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a program in an interpreter of its own and end with its status; before that, if who started it ends.

    Taking an interpreter with torch apart takes one to two seconds, and nothing here needs it.
    """
    owner = os.environ.pop(OWNER, "")
    if owner:
        end_with_parent(int(owner), signal.SIGTERM)
    try:
        status = main(sys.argv[1:])
    finally:
        if owner and os.getppid() != int(owner):  # it is gone, and nobody else will end what this has started
            os.killpg(0, signal.SIGKILL)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
