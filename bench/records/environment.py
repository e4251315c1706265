"""Where a run happened: versions, processor, GPU, and the state of the suite's own source."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.json_files import digest

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "accelerate",
    "deepspeed",
    "numpy",
    "scikit-learn",
)


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that results depend on; absent ones are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """The processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_environment(device: torch.device) -> dict[str, Any]:
    """What the run ran on; `environment_hash` covers the rest of the dict."""
    import torch

    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "packages": package_versions(),
        "gpu_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "cuda": torch.version.cuda or "",
    }
    return facts | {"environment_hash": digest(facts)}


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and cleanliness of the suite's own source; empty outside a git checkout."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--", ":!results"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"git_commit": commit.stdout.strip()[:12], "git_dirty": bool(status.stdout.strip())}
