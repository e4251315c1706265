"""The oldest transformers that is supported, and one newer than the pinned: what reads its models' code works there.

Both lie in front of the installed packages, with what they ask for in other versions than the pinned.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import distributions

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.install.conftest import run

OLDEST, NEWEST = "5.10.4", "5.24.0"
ROOMS = ["tests/strategies/structure", "tests/strategies/saving", "tests/test_families.py"]
OWN = ("huggingface-hub", "tokenizers")  # packages whose versions transformers narrows to a few


def test_they_are_the_ends_of_what_is_supported(root):
    (oldest,) = re.findall(r'"transformers>=(.+)"', (root / "pyproject.toml").read_text())
    pinned = re.findall(r"(?m)^transformers==([\d.]+)", (root / "constraints.txt").read_text())
    assert OLDEST.startswith(f"{oldest}.")
    assert all(Version(OLDEST) < Version(version) < Version(NEWEST) for version in pinned)


@pytest.fixture
def in_front(large_folder, bare):
    """Install a release of transformers into a folder, with the hub and the tokenizers that it asks for."""

    def install(version):
        folder = large_folder(f"transformers-{version}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]

        def put(*requirements):
            code, said = run([*command, "--target", folder, *requirements], folder, bare)
            assert code == 0, said[-3000:]

        put(f"transformers=={version}")
        (found,) = distributions(name="transformers", path=[str(folder)])
        needs = [Requirement(line) for line in found.requires or []]
        put(*(f"{need.name}{need.specifier}" for need in needs if need.name in OWN and not need.marker))
        return folder

    return install


NEW = pytest.param(NEWEST, marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="it needs Python 3.11"))


@pytest.mark.parametrize("version", [OLDEST, NEW])
def test_models_are_read_and_saved_with(version, in_front, bare, root):
    folder = in_front(version)
    surroundings = {**bare, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    ask = "import json, transformers; print(json.dumps([transformers.__version__, transformers.__file__]))"
    done = subprocess.run([sys.executable, "-c", ask], env=surroundings, capture_output=True, text=True, check=True)
    told, place = json.loads(done.stdout.splitlines()[-1])
    assert (told, place.startswith(str(folder))) == (version, True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ROOMS]
    code, said = run(command, root, surroundings)
    assert code == 0, said[-6000:]
    assert int(re.search(r"(\d+) passed", said)[1]) > 250
