"""The environment of a child process, and whether a fork can still take it.

A package that reads a variable when it is imported has read it in the server. So a fork takes only what is read later;
any other difference (`PYTORCH_CUDA_ALLOC_CONF`, `LD_PRELOAD`, what a strategy's `environ()` adds) needs an interpreter
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
# What keeps imports from starting threads (OpenBLAS its pool, Arrow's allocator its cleaner) and from touching a GPU
# (`torch.cuda.is_available()` asks NVML). A fork has none of it: the server's children get their own environment.
FORK_SAFE: Final = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}
READ_LATE: Final = frozenset({
    *FORK_SAFE, "PYTHONPATH", "PYTHONUNBUFFERED", "PWD", "OLDPWD", "COLUMNS", "LINES", "_",
    "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE",
    "MASTER_ADDR", "MASTER_PORT", "CUBLAS_WORKSPACE_CONFIG", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
})  # fmt: skip
THREADS: Final = "OMP_NUM_THREADS"
LATE_PREFIXES: Final = ("TUNEMATRIX_", "PYTEST_")


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: it finds this suite, and tasks in the current folder, on its path.

    OpenMP threads spin only briefly while they wait: with anything else running on two cores, GNU's default made a
    step of the tiny model 3 to 20 times slower; sleeping at once costs twice the time on a quiet machine. A value
    that is set already stays.
    """
    paths = [str(ROOT), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"GOMP_SPINCOUNT": "20000", **os.environ, **extra, "PYTHONPATH": os.pathsep.join(paths)}


def differences(server: Mapping[str, str], child: Mapping[str, str]) -> dict[str, Any]:
    """What a fork of `server` has to `set` and `unset` to have the environment `child`."""
    changed = {name: value for name, value in child.items() if server.get(name) != value}
    return {"set": changed, "unset": sorted(server.keys() - child.keys())}


def read_too_early(server: Mapping[str, str], child: Mapping[str, str]) -> list[str]:
    """Names of the variables in which a child differs and that packages may have read when they were imported."""
    found = differences(server, child)
    names = {*found["set"], *found["unset"]} - READ_LATE
    if found["set"].get(THREADS, "").isdecimal():
        names.discard(THREADS)  # it can be set in each library; how many threads there are without it is their secret
    return sorted(name for name in names if not name.startswith(LATE_PREFIXES))
