"""The repository's own promises: one place for versions, two files that agree, pages that are not stale."""

import ast
import re
import subprocess
import sys

import pytest
import yaml
from packaging.requirements import Requirement

from bench.record import schema_markdown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOMS = ("bench", "report", "strategies", "vqa_model")
PACKAGES = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "sklearn": "scikit-learn", "vl_convert": "vl-convert-python"}
FOR_OTHERS = {"accelerate", "deepspeed"}  # PEFT and Trainer import the one; runs record the version of the other
FOR_TYPES = {"typing-extensions"}  # for type checkers only


def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def canonical(name):
    return name.lower().replace("_", "-")


def pins(root):
    lines = (line.partition("#")[0].strip() for line in (root / "constraints.txt").read_text().splitlines())
    found = [Requirement(line) for line in lines if line]
    here = [pin for pin in found if pin.marker is None or pin.marker.evaluate()]
    assert len({canonical(pin.name) for pin in here}) == len(here), "pinned once"
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in here}


def test_environment_yaml_and_pyproject_say_the_same(root):
    environment = yaml.safe_load((root / "environment.yaml").read_text())
    (listed,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert listed[0] == "--constraint constraints.txt"
    assert sorted(listed[1:]) == sorted(project(root)["dependencies"])


def test_every_requirement_is_pinned_once_and_within_its_range(root):
    pinned = {canonical(name): version for name, version in pins(root).items()}
    wanted = [*project(root)["dependencies"], *project(root)["optional-dependencies"]["dev"]]
    for requirement in map(Requirement, wanted):
        if requirement.marker is None or requirement.marker.evaluate():
            assert pinned[canonical(requirement.name)] in requirement.specifier, requirement
    assert pinned["torch"] == "2.13.0"
    assert "torchvision" not in pinned


def test_what_is_installed_is_what_is_pinned(root):
    from importlib.metadata import version

    for name, pinned in pins(root).items():
        assert version(name).partition("+")[0] == pinned


def test_versions_stand_in_one_place(root):
    for path in (root / "pyproject.toml", root / "environment.yaml", root / "Makefile"):
        assert "torch==" not in path.read_text()


def test_the_schema_page_is_generated(root):
    assert (root / "docs" / "results-schema.md").read_text() == schema_markdown(), "run `make docs`"


@pytest.mark.parametrize(
    "target",
    [
        "setup",
        "tools",
        "matrix",
        "report",
        "test",
        "test-install",
        "check",
        "pins",
        "lint",
        "typecheck",
        "format",
        "performance",
    ],
)
def test_the_habits_of_the_house_are_targets(root, target):
    assert re.search(rf"^{target}:", (root / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("target", ["setup", "tools"])
def test_it_does_nothing_the_second_time(target, root):
    done = subprocess.run(["make", "-q", target, f"PYTHON={sys.executable}"], cwd=root, check=False)
    assert done.returncode == 0


def imported(root):
    """Distributions that the rooms import, at runtime or for types."""
    found = set()
    for path in (path for room in ROOMS for path in (root / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {*ROOMS}
    return {canonical(PACKAGES.get(name, name)) for name in found}


def test_what_runs_need_is_what_the_code_imports(root):
    declared = {canonical(Requirement(line).name) for line in project(root)["dependencies"]}
    extras = {canonical(Requirement(line).name) for line in project(root)["optional-dependencies"]["dev"]}
    assert declared - imported(root) == FOR_OTHERS
    assert imported(root) - declared - FOR_TYPES <= extras, "neither a dependency nor of an extra"


def test_markdown_links_lead_somewhere(root):
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_committed_results_name_no_place_of_a_machine(root):
    listed = subprocess.run(["git", "ls-files", "results"], cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        if name.endswith((".json", ".csv", ".md", ".svg")):
            assert not re.search(r"(/home/|/tmp/|/root/|/Users/|_name_or_path)", (root / name).read_text()), name
