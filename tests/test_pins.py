"""Pins hold on every Python that is supported, down to its first patch release, by what the packages' own metadata ask.

constraints.txt carries behind each pin what the package asks of Python, written by `make pins` from its metadata. Here
the lines are held to it without a network, and, for what is installed, the record to the metadata themselves.
"""

import platform
import re
from importlib.metadata import PackageNotFoundError, distribution, metadata

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

MINORS = ("3.10", "3.11", "3.12", "3.13", "3.14")
SYSTEMS = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"))
PATCHES = range(20)
OF_TORCH = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")
OLD_LINE = 'pymdown-extensions==13.1.2 ; python_version >= "3.11"'


def supported(root):
    (found,) = re.findall(r'^requires-python = "(.*?)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    return SpecifierSet(found)


def pins(text):
    """Every pin with its record: [(requirement, what it asks of Python)]."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    parts = [re.fullmatch(r"(\S+==[^\s;]+(?: ; [^#]+?)?)(?:  # Python (\S+))?", line) for line in lines]
    assert all(parts), lines[parts.index(None)]
    return [(Requirement(part[1]), part[2]) for part in parts]


def environment(version, system=SYSTEMS[0]):
    sys_platform, platform_system, machine = system
    return {
        **default_environment(),
        "python_version": version.rpartition(".")[0], "python_full_version": version, "os_name": "posix",
        "implementation_name": "cpython", "platform_python_implementation": "CPython",
        "sys_platform": sys_platform, "platform_system": platform_system, "platform_machine": machine,
    }  # fmt: skip


def in_force(found, version, system=SYSTEMS[0]):
    where = environment(version, system)
    return [(pin, record) for pin, record in found if pin.marker is None or pin.marker.evaluate(where)]


def faults(found, version, system=SYSTEMS[0]):
    """What is wrong with the pins on this Python."""
    here = in_force(found, version, system)
    names = [canonicalize_name(pin.name) for pin, _ in here]
    twice = [f"{name} is pinned twice" for name in sorted({name for name in names if names.count(name) > 1})]
    unknown = [f"{pin} has no record of what it asks of Python" for pin, record in here if record is None]
    asked = [(pin, SpecifierSet("" if record == "any" else record)) for pin, record in here if record]
    return twice + unknown + [f"{pin} asks for Python {asks}" for pin, asks in asked if version not in asks]


@pytest.fixture(scope="module")
def text(root):
    return (root / "constraints.txt").read_text()


def test_the_supported_minors_are_these(root):
    range_ = supported(root)
    assert tuple(f"3.{minor}" for minor in range(30) if f"3.{minor}.0" in range_) == MINORS
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (root / "pyproject.toml").read_text())
    assert tuple(classifiers) == MINORS
    asked = re.search(r"(\(3, \d+\)) <= v <= (\(3, \d+\))", (root / "Makefile").read_text())
    assert [f"3.{bound[4:-1]}" for bound in asked.groups()] == [MINORS[0], MINORS[-1]]


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS, ids=["-".join(system[1:]) for system in SYSTEMS])
@pytest.mark.parametrize("minor", MINORS)
def test_pins_hold_on_every_patch_release_of(minor, system, text, root):
    versions = [f"{minor}.{patch}" for patch in PATCHES if f"{minor}.{patch}" in supported(root)]
    assert versions[0] == f"{minor}.0"
    for version in versions:
        assert not faults(pins(text), version, system), version


def test_a_marker_guessed_from_one_interpreter_is_found(text):
    """The line that once broke set-up on Debian 12, whose Python is 3.11.2."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("pymdown-extensions"))
    for version in ("3.11.0", "3.11.2"):
        assert faults(pins(f"{kept}\n{OLD_LINE}"), version), "no record"
        assert faults(pins(f"{kept}\n{OLD_LINE}  # Python >=3.11.5"), version) == [
            f"{Requirement(OLD_LINE)} asks for Python >=3.11.5"
        ]
    assert not faults(pins(f"{kept}\n{OLD_LINE}  # Python >=3.11.5"), "3.11.5")
    assert faults(pins(f"{text}\n{OLD_LINE}  # Python >=3.11.5"), "3.12.0") == ["pymdown-extensions is pinned twice"]


def test_the_records_are_what_the_installed_packages_say(text):
    here = in_force(pins(text), platform.python_version())
    compared = 0
    for pin, record in here:
        try:
            asks = metadata(pin.name).get("Requires-Python") or ""
        except PackageNotFoundError:
            continue  # of another system; that nothing of this one lacks is held by test_repository
        assert record == (str(SpecifierSet(asks)) or "any"), pin
        compared += 1
    assert compared > 150


def test_everything_that_is_asked_for_is_pinned(text, root):
    """From what the project asks for, through what the installed packages ask for, nothing is left to chance."""
    pinned = {canonicalize_name(pin.name) for pin, _ in in_force(pins(text), platform.python_version())}
    seen, waiting = set(), [("tunematrix", ("dev",))]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen or OF_TORCH.match(name):
            continue
        seen.add((name, extras))
        assert name in pinned | {"tunematrix"}, name
        for line in distribution(name).requires or []:
            asked = Requirement(line)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in extras or ("",)):
                waiting.append((canonicalize_name(asked.name), tuple(sorted(asked.extras))))
    assert len(seen) > 150


def test_builds_of_torch_for_gpus_choose_their_libraries_themselves(text):
    names = {canonicalize_name(pin.name) for pin, _ in pins(text)}
    assert not [name for name in names if OF_TORCH.match(name)]
    assert "nvidia-ml-py" in names
