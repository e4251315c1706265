"""What a fork does before it is the program that was asked for: surroundings as in a fresh interpreter."""

from __future__ import annotations

import importlib
import io
import os
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.processes.lifetime import end_with_parent

# Constants that modules make of the temporary folder when they are imported: torch keeps compiled C++ headers there.
MADE_OF_TMPDIR: Final = {"torch._inductor.codecache": ("_HEADER_DIR", "_HEADER_LOCK_DIR")}
# Where OpenBLAS looks for its number of threads, first things first.
BLAS_VARIABLES: Final = (
    "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_DEFAULT_NUM_THREADS",
)  # fmt: skip


def become(
    request: Mapping[str, Any], output: int, errors: int, added_path: Sequence[str], library_path: Sequence[str]
) -> int:
    """Take what the request says and run its program; gives the exit status.

    output, errors: open files to write to. added_path, library_path: entries of the import path that imports have put
    there, and those that every program has.
    """
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    end_with_parent(request["server"], signal.SIGKILL)
    take_output(output, errors)
    threads = os.environ.get("OMP_NUM_THREADS")
    for name in request["unset"]:
        os.environ.pop(name, None)
    os.environ.update(request["set"])
    os.chdir(request["folder"])
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = list(dict.fromkeys([*added_path, request["folder"], *paths, *library_path]))
    importlib.invalidate_caches()
    move_temporary_files()
    draw_new_seeds()
    set_threads(threads)
    return run_program(request["module"], request["arguments"])


def move_temporary_files() -> None:
    """Let the temporary folder be asked for again, in this environment, and what imports have made of it follow."""
    before, tempfile.tempdir = tempfile.gettempdir(), None
    after = tempfile.gettempdir()
    for name, constants in MADE_OF_TMPDIR.items():
        for constant in constants if name in sys.modules else ():
            value: str = getattr(sys.modules[name], constant, "")
            if value.startswith(before):
                setattr(sys.modules[name], constant, after + value.removeprefix(before))


def draw_new_seeds() -> None:
    """Let what is not seeded differ between forks, as it does between interpreters."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def set_threads(before: str | None) -> None:
    """Let every library compute in as many threads as the environment gives a fresh interpreter.

    before: OMP_NUM_THREADS when they were imported. The server's imports had one thread of OpenBLAS each.
    """
    from threadpoolctl import ThreadpoolController

    pools, wanted = ThreadpoolController(), os.environ.get("OMP_NUM_THREADS")
    if wanted is not None and wanted != before:
        pools.select(user_api="openmp").limit(limits=int(wanted))
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(int(wanted))
    given = (os.environ.get(name, "").partition(",")[0] for name in BLAS_VARIABLES)
    numbers = [int(text) for text in given if text.isdecimal() and int(text)]
    pools.select(internal_api="openblas").limit(limits=numbers[0] if numbers else len(os.sched_getaffinity(0)))


def take_output(output: int, errors: int) -> None:
    """Make these files standard output and errors, written at once; standard input is empty."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, number in ((nothing, 0), (output, 1), (errors, 2)):
        os.dup2(file, number)
    for file in {nothing, output, errors} - {0, 1, 2}:
        os.close(file)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        encoding, on_error = stream.encoding, stream.errors
        raw = open(number, "wb", buffering=0, closefd=False)  # noqa: SIM115 - as long as the process
        setattr(sys, name, io.TextIOWrapper(raw, encoding, on_error, write_through=True))


def run_program(module: str, arguments: Sequence[str]) -> int:
    """Run `module.main(arguments)`; gives its exit status as an interpreter would."""
    sys.argv = [module, *arguments]
    try:
        return int(importlib.import_module(module).main(arguments) or 0)
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:  # noqa: BLE001  (as an interpreter does)
        traceback.print_exc()
    return 1
