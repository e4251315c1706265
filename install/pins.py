"""Write constraints.txt: a version of every package for each Python that is supported, with what it asks of Python.

`make pins` runs this with uv and a new pip in an environment of their own. uv resolves for all minors at once and
splits where a package asks for a newer Python, down to its patch (`python_full_version >= '3.11.5'`): no marker is a
guess from the one interpreter at hand. Versions already pinned stay where they hold; `--upgrade` takes the newest.

Then pip is asked, as if it ran on the first patch release of each minor, whether it could install every pin; what the
metadata say of Python is written beside it. tests/test_pins.py holds the lines to that without any network.

What only PyTorch's builds for GPUs bring is not pinned: torch names those versions itself, each build its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parent.parent
PINS: Final = ROOT / "constraints.txt"
OF_TORCH: Final = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton\b)")
NO_WHEELS: Final = ("deepspeed",)
"""What is built where it is installed: it ships its source only, and compiles nothing with DS_BUILD_OPS=0."""
HEADER: Final = """\
# Exact versions of everything installed, for every supported Python: the one place where they are pinned. Written by
# `make pins`; pyproject.toml holds the ranges the code supports. Behind each: what its metadata ask of Python.
"""


def main() -> None:
    """Resolve, ask pip about every pin, write."""
    lines = [simplest(line) for line in resolve(sys.argv[1:]) if any(applies(line, *place) for place in PLACES)]
    asked: dict[str, str] = {}
    for version in sorted({version for version, _ in PLACES} | named_versions(lines), key=Version):
        here = [line for line in lines if any(applies(line, version, system) for system in SYSTEMS)]
        asked |= requires_python(here, version)
        print(f"Python {version}: every pin can be installed", flush=True)
    PINS.write_text(HEADER + "".join(f"{line}  # Python {asked[pin(line)]}\n" for line in lines))
    print(f"{PINS.name}: {len(lines)} pins")


def minors() -> list[str]:
    """The supported minors, oldest first, from pyproject.toml: ["3.10", …]."""
    (found,) = re.findall(r'^requires-python = "(.*?)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return [f"3.{minor}" for minor in range(100) if f"3.{minor}.0" in SpecifierSet(found)]


SYSTEMS: Final = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"))
PLACES: Final = tuple((f"{minor}.0", system) for minor in minors() for system in SYSTEMS)
"""Where pins have to hold: first patch releases, and (sys_platform, platform_system, platform_machine)."""


def resolve(options: Iterable[str]) -> list[str]:
    """The pins that uv finds for all supported minors; those that hold already stay. options: more words for uv."""
    command = [
        sys.executable,
        "-m",
        "uv",
        "--quiet",
        "pip",
        "compile",
        "pyproject.toml",
        "--extra",
        "dev",
        "--universal",
    ]
    command += ["--python-version", minors()[0], "--fork-strategy", "requires-python", "--no-header", "--no-annotate"]
    subprocess.run([*command, "--output-file", str(PINS), *options], cwd=ROOT, check=True)
    return [line for line in PINS.read_text().splitlines() if line and not OF_TORCH.match(line)]


def named_versions(lines: Iterable[str]) -> set[str]:
    """Patch releases at which a pin changes, by the markers."""
    return set(re.findall(r"python_full_version [<>=]+ '(3\.\d+\.\d+)'", "\n".join(lines)))


def applies(line: str, version: str, system: tuple[str, str, str]) -> bool:
    """Whether a pin is in force on CPython of this version on this system."""
    marker = Requirement(line).marker
    names = ("sys_platform", "platform_system", "platform_machine")
    python = {"python_version": version.rpartition(".")[0], "python_full_version": version}
    fixed = {"os_name": "posix", "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    return marker is None or marker.evaluate({**python, **fixed, **dict(zip(names, system, strict=True))})


def simplest(line: str) -> str:
    """The line, without its marker where it is in force everywhere."""
    return pin(line) if all(applies(line, *place) for place in PLACES) else line


def pin(line: str) -> str:
    """The pin without its marker, e.g. "torch==2.13.0"."""
    requirement = Requirement(line)
    return f"{canonicalize_name(requirement.name)}{requirement.specifier}"


def requires_python(lines: Iterable[str], version: str) -> dict[str, str]:
    """What each pin's metadata ask of Python, by pip on that Python; pip's own error where one cannot be installed."""
    with tempfile.TemporaryDirectory() as folder:
        wanted, told = Path(folder) / "pins.txt", Path(folder) / "report.json"
        wanted.write_text("\n".join(map(pin, lines)))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--only-binary", ":all:", "--no-binary", ",".join(NO_WHEELS), "--python-version", version]
        subprocess.run([*command, "--target", folder, "--report", str(told), "-r", str(wanted)], check=True)
        found = [item["metadata"] for item in json.loads(told.read_text())["install"]]
    return {
        f"{canonicalize_name(data['name'])}=={data['version'].partition('+')[0]}": str(
            SpecifierSet(data.get("requires_python", ""))
        )
        or "any"
        for data in found
    }


if __name__ == "__main__":
    main()
