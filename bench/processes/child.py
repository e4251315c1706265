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
from typing import Any

from bench.processes.lifetime import end_with_parent


def become(request: Mapping[str, Any], output: int, errors: int, library_path: Sequence[str]) -> int:
    """Take what the request says and run its program; gives the exit status.

    output, errors: open files to write to. library_path: entries of the import path that every program has.
    """
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent(request["server"])
    take_output(output, errors)
    threads = os.environ.get("OMP_NUM_THREADS")
    for name in request["unset"]:
        del os.environ[name]
    os.environ.update(request["set"])
    os.chdir(request["folder"])
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = list(dict.fromkeys([request["folder"], *paths, *library_path]))
    importlib.invalidate_caches()
    tempfile.tempdir = None  # asked for again, in this environment
    draw_new_seeds()
    set_threads(threads)
    return run_program(request["module"], request["arguments"])


def draw_new_seeds() -> None:
    """Let what is not seeded differ between forks, as it does between interpreters."""
    random.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    if torch := sys.modules.get("torch"):
        torch.default_generator.seed()


def set_threads(before: str | None) -> None:
    """Let torch and OpenBLAS compute in as many threads as the environment gives a fresh interpreter.

    before: OMP_NUM_THREADS when they were imported.
    """
    wanted = os.environ.get("OMP_NUM_THREADS")
    torch = sys.modules.get("torch")
    if torch is not None and wanted != before:
        torch.set_num_threads(int(wanted) if wanted else len(os.sched_getaffinity(0)))
    if "numpy" in sys.modules:
        from threadpoolctl import ThreadpoolController

        blas = os.environ.get("OPENBLAS_NUM_THREADS") or wanted or str(len(os.sched_getaffinity(0)))
        ThreadpoolController().select(internal_api="openblas").limit(limits=int(blas))


def take_output(output: int, errors: int) -> None:
    """Make these files standard output and errors, written line by line; standard input is empty."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, number in ((nothing, 0), (output, 1), (errors, 2)):
        os.dup2(file, number)
    for file in {nothing, output, errors} - {0, 1, 2}:
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(line_buffering=True)


def run_program(module: str, arguments: Sequence[str]) -> int:
    """Run `module.main(arguments)`; gives its exit status as an interpreter would."""
    sys.argv = [module, *arguments]
    try:
        return int(importlib.import_module(module).main(arguments))
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001  (as an interpreter does)
        traceback.print_exc()
        return 1
