"""Every other Python that is found here: pip resolves its pins and installs all but torch, which is used for real.

PyTorch's builds for GPUs are gigabytes: metadata alone stand in for torch, which ask for what torch asks for, but for
the libraries of its own; what is installed besides is what `python -m report` needs. `make tools` has installed all of
it for the Python that runs this, and test_setup does for the system's: there tests/test_pins.py holds the same of what
is installed.
"""

import json
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.install.conftest import MINORS, PYTHONS, system_python, version_of
from tests.test_pins import OF_TORCH, in_force, pins

FULLY_TRIED = {version_of(sys.executable), version_of(system_python())}
HERE = sorted({*PYTHONS} - FULLY_TRIED, key=lambda version: tuple(map(int, version.split("."))))
ABSENT = [minor for minor in MINORS if not any(version.startswith(f"{minor}.") for version in PYTHONS)]


@pytest.fixture(scope="module")
def pip(large_folder, bare):
    """A pip that resolves from metadata alone, and works for any Python."""
    folder = large_folder("pip")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], env=bare, check=True)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "pip"]
    subprocess.run(command, env=bare, check=True, capture_output=True)
    return [python, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def stand_in_for_torch(site_packages, metadata):
    """Torch's metadata, without code and without what its builds for GPUs bring."""
    folder = site_packages / f"torch-{metadata['version']}.dist-info"
    folder.mkdir()
    asked = [
        line for line in metadata["requires_dist"] if not OF_TORCH.match(canonicalize_name(Requirement(line).name))
    ]
    assert len(asked) > 5
    lines = ["Metadata-Version: 2.1", "Name: torch", f"Version: {metadata['version']}"]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in asked), ""]))
    (folder / "RECORD").touch()


@pytest.fixture(scope="module")
def installed(pip, copy_of, large_folder, bare):
    """What pip installs for the suite and its tools on a Python: the environment's program, and the metadata of all."""
    known = {}

    def install(version):
        if version in known:
            return known[version]
        folder, place = large_folder(f"python-{version}"), copy_of()
        subprocess.run([PYTHONS[version], "-m", "venv", "--without-pip", str(folder)], env=bare, check=True)
        (site_packages,) = folder.glob("lib/python3.*/site-packages")
        python, report = str(folder / "bin" / "python"), folder / "report.json"
        command = [*pip, "--python", python, "install", "--quiet", "--constraint", "constraints.txt"]
        command += ["--report", str(report), "--no-compile"]

        def ask(*words):
            done = subprocess.run(
                [*command, *words],
                cwd=place, env={**bare, "DS_BUILD_OPS": "0"}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            return [item["metadata"] for item in json.loads(report.read_text())["install"]]

        (torch,) = ask("--dry-run", "--no-deps", "torch")
        stand_in_for_torch(site_packages, torch)
        known[version] = python, [torch, *ask(".[dev]")]
        return known[version]

    return install


@pytest.mark.parametrize("version", [*HERE, *ABSENT])
def test_every_pin_resolves_on(version, installed, root):
    if version in ABSENT:
        pytest.skip(f"no Python {version} is found here")
    _, packages = installed(version)
    pinned = {
        canonicalize_name(pin.name): (str(pin.specifier), record)
        for pin, record in in_force(pins((root / "constraints.txt").read_text()), version)
    }
    assert len(packages) > 150
    for package in packages:
        name = canonicalize_name(package["name"])
        if name == "tunematrix":
            continue
        asks = str(SpecifierSet(package.get("requires_python", ""))) or "any"
        assert (f"=={package['version'].partition('+')[0]}", asks) == pinned[name], name


@pytest.mark.parametrize("version", HERE or ["none"])
def test_all_but_torch_is_installed_and_draws_a_report_on(version, installed, root, bare, tmp_path):
    if version == "none":
        pytest.skip("no other Python is found here than those that are tried in full")
    python, _ = installed(version)
    sweep = tmp_path / "embedded"
    shutil.copytree(root / "results" / "embedded", sweep, ignore=shutil.ignore_patterns("figures", "comparisons.csv"))
    done = subprocess.run(
        [python, "-m", "report", str(sweep)], cwd=tmp_path, env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (sweep / "comparisons.csv").read_text() == (root / "results/embedded/comparisons.csv").read_text()
    assert list((sweep / "figures").glob("*.png"))


def test_nothing_that_make_tools_installed_contradicts_itself(bare, tmp_path):
    command = [sys.executable, "-m", "pip", "check"]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
