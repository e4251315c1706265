"""Empty places in which the suite is installed for real: what git knows, an empty HOME, a bare environment.

An environment takes gigabytes and a minute, so `make setup` is done once, and the wheel is tried among the packages
that it installed. Of two processes (`pytest -n 2`) each tries environments of its own.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from xdist.scheduler import LoadScopeScheduling

MINORS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SYSTEM = "/usr/bin/python3"
ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])))"


class ByEnvironment(LoadScopeScheduling):
    """Tests that share an environment run one after the other in one process."""

    def _split_scope(self, nodeid):
        version = re.search(r"\[(3\.\d+\.\d+)\]$", nodeid)
        return "clone" if re.search(r"test_(setup|wheel)\.py", nodeid) else version[1] if version else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return ByEnvironment(config, log)


def version_of(python):
    asked = subprocess.run([str(python), "-c", ASK], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def found_pythons():
    """Pythons of this machine by version: the system's, those on the PATH, pyenv's, and the one that runs this."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [shutil.which(f"python{minor}") for minor in ("3", *MINORS)]
    places = [SYSTEM, sys._base_executable, *sorted(pyenv.glob("3.*/bin/python")), *filter(None, named)]
    by_version = {}
    for place in places:
        version = version_of(place) if Path(place).exists() else ""
        if version:
            by_version.setdefault(version, str(place))
    return by_version


FOUND = found_pythons()
PYTHONS = {version: place for version, place in FOUND.items() if version.rpartition(".")[0] in MINORS}


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """Environment variables of a stranger: no more than where programs and packages are found, and an empty HOME."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if re.match(r"PIP_|https?_proxy|SSL_CERT", name)}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home), **kept}


@pytest.fixture(scope="session")
def large_folder(tmp_path_factory):
    """Make folders that are gone when their tests are: an environment takes gigabytes."""
    made = []

    def make(name):
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def copy_of(root, tmp_path_factory):
    """Make a copy of the project as git has it, with what is not yet committed; without the results."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--deduplicate"],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [name for name in listed.stdout.splitlines() if (root / name).is_file() and not name.startswith("results/")]

    def make():
        place = tmp_path_factory.mktemp("copy")
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, place / name)
        return place

    return make


def system_python():
    """The Python that a stranger has: the system's, if it is supported."""
    version = version_of(SYSTEM) if Path(SYSTEM).exists() else ""
    return SYSTEM if version in PYTHONS else sys._base_executable


def run(command, folder, environment):
    """A command's exit status and its words, stdout and stderr as one."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


class Stranger:
    """Runs make and programs in a bare environment."""

    def __init__(self, environment, python):
        self.environment = environment
        self.python = python

    def run(self, command, folder, *, without=(), **names):
        environment = {name: value for name, value in self.environment.items() if name not in without} | names
        return run(command, folder, environment)

    def make(self, folder, *words, **options):
        python = [] if any(word.startswith("PYTHON=") for word in words) else [f"PYTHON={self.python}"]
        return self.run(["make", *python, *words], folder, **options)


@pytest.fixture(scope="session")
def stranger(bare):
    return Stranger(bare, system_python())


class Clone(NamedTuple):
    """A copy of the project after its first `make setup`, and what that said."""

    place: Path
    said: str

    @property
    def site_packages(self):
        (found,) = (self.place / ".venv" / "lib").glob("python3.*/site-packages")
        return found


@pytest.fixture(scope="session")
def clone(copy_of, stranger):
    place = copy_of()
    code, said = stranger.make(place, "setup")
    assert code == 0, said
    yield Clone(place, said)
    shutil.rmtree(place / ".venv")


@pytest.fixture(scope="session")
def megabytes(clone, root):
    """What the environment for runs takes, before anything else is installed into it."""
    return runpy.run_path(str(root / "install" / "environment.py"))["megabytes"](clone.place / ".venv")


@pytest.fixture(scope="session")
def packages_for_runs(clone, megabytes, bare, large_folder):
    """An environment with the packages that `make setup` installed, as hard links, but for the project itself."""
    assert megabytes
    folder = large_folder("consumer") / "venv"
    python = clone.place / ".venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder)], env=bare, check=True)
    (site_packages,) = folder.glob("lib/python3.*/site-packages")
    shutil.copytree(clone.site_packages, site_packages, copy_function=os.link, dirs_exist_ok=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "uninstall", "--quiet", "--yes", "tunematrix"]
    subprocess.run(command, cwd=folder, env=bare, check=True, capture_output=True)
    assert not [*site_packages.glob("*tunematrix*")]
    return folder


@pytest.fixture
def foreign_python():
    """A Python that is too old or too new."""
    foreign = [place for version, place in FOUND.items() if version not in PYTHONS]
    if not foreign:
        pytest.skip("no Python out of range is found here")
    return foreign[0]
