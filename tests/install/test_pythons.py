"""Every Python that is found here: its pins resolve, and all but torch's own packages are installed and used for real.

PyTorch's builds for GPUs are gigabytes, so they are only resolved; what remains is what `python -m report` needs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.install.conftest import MINORS, PYTHONS, version_of
from tests.test_pins import OF_TORCH, in_force, pins

HERE = sorted(PYTHONS, key=lambda version: tuple(map(int, version.split("."))))
ABSENT = [minor for minor in MINORS if not any(version.startswith(f"{minor}.") for version in HERE)]
FULLY_TRIED = {version_of(sys.executable), version_of("/usr/bin/python3")}
"""What test_setup and test_wheel install in full."""


@pytest.fixture(scope="module")
def pip(large_folder, bare):
    """A pip that resolves from metadata alone, and works for any Python."""
    folder = large_folder("pip")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], env=bare, check=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "pip"]
    subprocess.run(command, env=bare, check=True, capture_output=True)
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]


@pytest.fixture(scope="module")
def resolved(pip, copy_of, large_folder, bare):
    """What pip would install for the suite and its tools on a Python: its environment, and the packages' metadata."""
    place, known = copy_of(), {}

    def resolve(version):
        if version not in known:
            folder = large_folder(f"python-{version}")
            subprocess.run([PYTHONS[version], "-m", "venv", "--without-pip", str(folder)], env=bare, check=True)
            report = folder / "report.json"
            command = [*pip, "--python", str(folder / "bin" / "python"), "install", "--dry-run", "--quiet"]
            command += ["--constraint", "constraints.txt", "--report", str(report), ".[dev]"]
            done = subprocess.run(command, cwd=place, env=bare, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            known[version] = folder, [item["metadata"] for item in json.loads(report.read_text())["install"]]
        return known[version]

    return resolve


@pytest.mark.parametrize("version", [*HERE, *ABSENT])
def test_every_pin_resolves_on(version, resolved, root):
    if version in ABSENT:
        pytest.skip(f"no Python {version} is found here")
    _, packages = resolved(version)
    pinned = {
        canonicalize_name(pin.name): (str(pin.specifier), record)
        for pin, record in in_force(pins((root / "constraints.txt").read_text()), version)
    }
    assert len(packages) > 150
    for package in packages:
        name = canonicalize_name(package["name"])
        if name == "tunematrix" or OF_TORCH.match(name):
            continue
        asks = str(SpecifierSet(package.get("requires_python", ""))) or "any"
        assert (f"=={package['version'].partition('+')[0]}", asks) == pinned[name], name


@pytest.mark.parametrize("version", [version for version in HERE if version not in FULLY_TRIED] or ["none"])
def test_all_but_torch_is_installed_and_draws_a_report_on(version, resolved, pip, bare, tmp_path):
    if version == "none":
        pytest.skip("no other Python is found here than those that test_setup and test_wheel try")
    folder, packages = resolved(version)
    ours = {"tunematrix", "torch"}
    wanted = [
        f"{package['name']}=={package['version']}"
        for package in packages
        if canonicalize_name(package["name"]) not in ours and not OF_TORCH.match(canonicalize_name(package["name"]))
    ]
    python = str(folder / "bin" / "python")
    command = [*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-compile", *wanted]
    done = subprocess.run(command, env={**bare, "DS_BUILD_OPS": "0"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    root, sweep = Path(__file__).resolve().parent.parent.parent, tmp_path / "embedded"
    shutil.copytree(root / "results" / "embedded", sweep, ignore=shutil.ignore_patterns("figures", "comparisons.csv"))
    done = subprocess.run(
        [python, "-m", "report", str(sweep)],
        cwd=tmp_path, env={**bare, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (sweep / "comparisons.csv").read_text() == (root / "results/embedded/comparisons.csv").read_text()
    assert list((sweep / "figures").glob("*.png"))
