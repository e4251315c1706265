"""What is known of GPUs beforehand: memory, dense peak FLOPS, price. Figures and their sources stand in gpus.json.

Standard library only. What is not known is None or missing, so that nobody computes with a guess.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.records.json_files import read_json
from strategies.errors import closest_first

TABLE: Final = Path(__file__).with_name("gpus.json")
CONTEXT_MIB: Final = 600
SHARE_USABLE: Final = 0.95  # of the memory on the sheet where nothing is known: ECC, driver and context take the rest


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU. `tflops`: dense peaks by compute precision (fp32, tf32, bf16, fp16), those that exist."""

    name: str
    memory_bytes: int  # what torch can allocate at most
    tflops: Mapping[str, float]
    bandwidth_bytes_per_second: float | None
    dollars_per_hour: float | None
    matches: tuple[str, ...] = ()
    workspace_bytes: int = 0  # cuBLAS's, which torch's allocator counts and no tensor tells
    context_bytes: int = CONTEXT_MIB * 2**20  # CUDA's and its libraries', which the allocator does not count


@functools.cache
def known_gpus() -> Mapping[str, Gpu]:
    """Every GPU of the table, by name."""
    return {entry["name"]: _gpu(entry) for entry in read_json(TABLE)["gpus"]}


def _gpu(entry: Mapping[str, Any]) -> Gpu:
    usable = entry["usable_gib"] * 2**30 if "usable_gib" in entry else entry["memory_gb"] * 1e9 * SHARE_USABLE
    return Gpu(
        name=entry["name"], memory_bytes=int(usable), tflops=entry["tflops"],
        bandwidth_bytes_per_second=entry["bandwidth_gb_s"] * 1e9, dollars_per_hour=entry.get("dollars_per_hour"),
        matches=tuple(entry["matches"]), workspace_bytes=entry.get("workspace_mib", 0) * 2**20,
        context_bytes=entry.get("context_mib", CONTEXT_MIB) * 2**20,
    )  # fmt: skip


def find_gpu(text: str) -> Gpu:
    """The GPU meant on a command line: a name of the table, or a size such as 16GB (nothing else is known then).

    ValueError lists the names there are.
    """
    plain = {name.lower(): gpu for name, gpu in known_gpus().items()}
    if gpu := plain.get(text.strip().lower().replace(" ", "")):
        return gpu
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gi?b)", text.strip().lower()):
        number, unit = size.groups()
        memory = float(number) * (2**30 if unit == "gib" else 1e9)
        return Gpu(
            name=text, memory_bytes=int(memory), tflops={}, bandwidth_bytes_per_second=None, dollars_per_hour=None
        )
    raise ValueError(f"no GPU {text!r} in the table; a size such as 16GB, or: {closest_first(text, known_gpus())}")


def match_gpu(device_name: str) -> Gpu | None:
    """The GPU whose name the driver gives; None when the table does not hold it. The longest match wins."""
    name = device_name.lower()
    found = [
        (len(part), gpu)
        for gpu in known_gpus().values()
        for part in gpu.matches
        if re.search(rf"\b{re.escape(part)}\b", name)
    ]
    return max(found, key=lambda match: match[0])[1] if found else None


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether any of torch's compiled architectures (`sm_75`, `compute_90`, …) runs on a GPU of this capability.

    A torch without them sees the GPU, and dies at the first operation
    (https://github.com/Kaggle/kaggle-cli/issues/1151).
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        major, minor = divmod(int(number.rstrip("abcdefgh")), 10)
        if (kind == "sm" and major == capability[0] and minor <= capability[1]) or (
            kind == "compute" and (major, minor) <= capability
        ):
            return True
    return False
