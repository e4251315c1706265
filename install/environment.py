"""Make the environment that `make` runs in: a venv, PyTorch's fitting build, then the pinned packages, with pip.

A newcomer reads at most four short lines: what is installed, how big it is, how long it takes, or what to do where it
cannot be done. pip's own words go to install.log in the environment. Standard library only: nothing is installed yet.

On a machine without an NVIDIA GPU the build for GPUs is gigabytes of libraries that nothing can use. There torch comes
from PyTorch's index of CPU builds, and from nowhere else if pip finds it there or in its --find-links; what torch
needs comes from PyPI like everything else, so that one index never answers for the packages of another.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
CPU_INDEX: Final = "https://download.pytorch.org/whl/cpu"
MIB: Final = 2**20
MEGABYTES: Final = {"cpu": 2000, "cuda": 5800}
"""What an environment for runs takes on disk (`du -sm`), by PyTorch's build; tests/install/ holds it to that."""
TOOLS_MEGABYTES: Final = 500
SPARE_MEGABYTES: Final = 800
"""What pip unpacks at most beside the environment while it installs."""
UNREACHED: Final = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ProxyError",
    "SSLError",
    "(from versions: none)",
)


def main() -> None:
    """Read the arguments, install, and turn what goes wrong into one line."""
    parser = argparse.ArgumentParser(description="make the environment of the suite")
    parser.add_argument("folder", type=Path, help="the environment, e.g. .venv")
    parser.add_argument("--tools", action="store_true", help="also what tests, lint, types and pages take")
    parser.add_argument("--torch", default="", help="PyTorch's build, cpu or cuda; by the machine if empty")
    parser.add_argument("--cpu-index", default=CPU_INDEX, help="where CPU builds are listed")
    options = parser.parse_args()
    if options.torch not in {"", *MEGABYTES}:
        fail(f"TORCH={options.torch}: there are {' and '.join(MEGABYTES)}; leave it out to let the machine decide")
    try:
        install(options.folder, tools=options.tools, wanted=options.torch, cpu_index=options.cpu_index)
    except KeyboardInterrupt:
        fail("stopped; the same command goes on")


def install(folder: Path, *, tools: bool, wanted: str, cpu_index: str) -> None:
    """Make the environment in `folder`, or bring it up to date. wanted: "cpu", "cuda", or "" for what fits here."""
    start = time.monotonic()
    recorded = folder / ".torch"
    found = recorded.read_text().strip() if recorded.exists() else ""
    build, reason = choose(wanted or found)
    check_disk(folder, TOOLS_MEGABYTES if tools else 0 if found else MEGABYTES[build])
    make_venv(folder, afresh=bool(found) and found != build)
    if reason:
        print(reason, flush=True)
    if not tools:
        size = f"about {MEGABYTES[build] / 1000:.1f} GB"
        print(f"{folder}: installing what runs need, {size}, 1 to 5 minutes; log in {folder}/install.log", flush=True)
        install_torch(folder, build, cpu_index, forced=bool(wanted))
    else:
        print(f"{folder}: installing the tools of tests, lint and pages, about 0.5 GB, 1 to 3 minutes", flush=True)
    install_all(folder, ".[dev]" if tools else ".")
    torch = torch_version(folder)
    if wanted == "cuda" and torch.endswith("+cpu"):
        fail(f"TORCH=cuda: pip found torch {torch} first; see find-links and index-url in `pip config list`")
    recorded.write_text("cuda\n" if platform.system() == "Linux" and not torch.endswith("+cpu") else "cpu\n")
    print(f"{folder}: ready after {time.monotonic() - start:.0f} s, {megabytes(folder):,} MB, torch {torch}")


def choose(wanted: str) -> tuple[str, str]:
    """PyTorch's build for this machine, and a line that says why where it was not asked for."""
    if platform.system() != "Linux":  # PyPI's one build is without CUDA there
        if wanted == "cuda":
            fail(f"TORCH=cuda: PyTorch has no such build for {platform.system()}")
        return "cpu", ""
    if wanted:
        return wanted, ""
    if has_gpu():
        return "cuda", "NVIDIA GPU found: PyTorch's build for it (TORCH=cpu takes the small one)"
    return "cpu", "no NVIDIA GPU found: PyTorch's CPU build (TORCH=cuda takes the one for GPUs)"


def has_gpu() -> bool:
    """Whether the NVIDIA driver lists a GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def check_disk(folder: Path, needed: int) -> None:
    """Fail where the disk is too full. needed: MB that are to be written."""
    free = shutil.disk_usage(folder if folder.exists() else folder.absolute().parent).free // MIB
    if needed and free < needed + SPARE_MEGABYTES:
        fail(f"{folder} needs {needed + SPARE_MEGABYTES:,} MB of disk while it is made; {free:,} MB are free there")


def make_venv(folder: Path, *, afresh: bool) -> None:
    """Make the venv where there is none with a pip that runs; afresh: also where there is one."""
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--version"]
    if not afresh and python.exists() and not subprocess.run(pip, capture_output=True, check=False).returncode:
        return
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
        fail(f"{sys.executable} cannot make environments: on Debian and Ubuntu, apt install {package}")
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        fail(f"no environment could be made in {folder}: {last_line(done.stderr or done.stdout)}")


def install_torch(folder: Path, build: str, cpu_index: str, *, forced: bool) -> None:
    """Install torch alone where its CPU build is wanted; the other build comes with the rest.

    forced: that build or none; else what PyPI has is taken where the index has nothing for this machine.
    """
    if build == "cuda" or platform.system() != "Linux":
        return
    few = ["--retries", "1", "--timeout", "15"]  # an index that cannot be reached is told soon
    output = pip(folder, ["--no-deps", "--index-url", cpu_index, *few, "torch"])
    if output is None:
        return
    why = "cannot be reached" if any(word in output for word in UNREACHED) else "has no such torch for this Python"
    if forced:
        fail(f"TORCH=cpu: {cpu_index} {why}; CPU_INDEX=… names another place, TORCH=cuda takes PyPI's build")
    print(f"{cpu_index} {why}: PyPI's build for GPUs is taken, {MEGABYTES['cuda'] / 1000:.1f} GB in all", flush=True)
    check_disk(folder, MEGABYTES["cuda"])


def install_all(folder: Path, project: str) -> None:
    """Install the project, editable, with its pinned packages."""
    output = pip(folder, ["--editable", project])
    if output is not None:
        fail(f"{explain(output)}; all of pip's words: {folder}/install.log")
    ours = [name for name in ("bench", "report", "strategies", "vqa_model", "run_matrix.py") if (ROOT / name).exists()]
    subprocess.run([str(folder / "bin" / "python"), "-m", "compileall", "-q", *ours], cwd=ROOT, check=False)


def pip(folder: Path, arguments: Sequence[str]) -> str | None:
    """Run pip install with the pins and add its words to install.log; the words where it failed, else None."""
    command = [str(folder.absolute() / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["--no-input", "--progress-bar", "off", "--constraint", "constraints.txt", *arguments]
    environment = {**os.environ, "DS_BUILD_OPS": "0"}  # deepspeed compiles nothing
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    with (folder / "install.log").open("a") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    return done.stdout if done.returncode else None


def explain(output: str) -> str:
    """What went wrong and what to do, from pip's words."""
    if "No space left on device" in output:
        return "the disk is full: free some, or point TMPDIR at a larger one"
    if any(word in output for word in UNREACHED):
        return "pip reached no package index: look at the network, or name a mirror in PIP_INDEX_URL"
    errors = [line.partition("ERROR:")[2].strip() for line in output.splitlines() if "ERROR:" in line]
    return f"pip failed: {errors[0] if errors else last_line(output)}"


def last_line(text: str) -> str:
    """The last line with anything on it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def megabytes(folder: Path) -> int:
    """Disk space of a folder in MiB, as `du -sm` counts."""
    blocks = [path.lstat().st_blocks for path in folder.rglob("*")]
    return sum(blocks) * 512 // MIB


def torch_version(folder: Path) -> str:
    """The version of the installed torch, e.g. "2.13.0+cpu"."""
    ask = "import importlib.metadata as m; print(m.version('torch'))"
    asked = subprocess.run([str(folder / "bin" / "python"), "-c", ask], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def fail(message: str) -> NoReturn:
    """End with one line."""
    sys.exit(message)


if __name__ == "__main__":
    main()
