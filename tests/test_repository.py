"""The repository's own promises: one place for versions, two files that agree, pages that are not stale."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from packaging.requirements import Requirement

from bench.records.record import schema_markdown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


ROOMS = ("bench", "report", "strategies", "vqa_model")
PACKAGES = {"PIL": "pillow", "pynvml": "nvidia-ml-py", "sklearn": "scikit-learn", "vl_convert": "vl-convert-python"}
FOR_OTHERS = {"deepspeed"}  # runs record its version
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
        "durations",
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


@pytest.mark.parametrize(
    ("target", "stamps"), [("setup", [".installed"]), ("tools", [".installed", ".installed-tools"])]
)
def test_it_does_nothing_the_second_time(target, stamps, root, tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path)
    is_done = lambda: subprocess.run(["make", "-q", target], cwd=tmp_path, check=False).returncode == 0
    assert not is_done()
    (tmp_path / ".venv").mkdir()
    for stamp in stamps:
        (tmp_path / ".venv" / stamp).touch()
    assert is_done()
    for name in ("pyproject.toml", "constraints.txt"):
        os.utime(tmp_path / name, (time.time() + 60, time.time() + 60))
        assert not is_done(), name
        os.utime(tmp_path / name, (0, 0))


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


def committed(root, *places):
    listed = subprocess.run(["git", "ls-files", "-z", *places], cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def shown(root):
    """Files under results/ that README.md and docs/*.md link or show."""
    for page in [root / "README.md", *(root / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            place = (page.parent / target).resolve()
            if place.is_relative_to(root / "results"):
                yield place.relative_to(root).as_posix()


SIDE_FILE = re.compile(
    r"results/(README\.md|rendered\.sha256|[\w.-]+/("
    r"(runs|history|metrics|sections|memory|comparisons)\.csv|predictions\.parquet|(summary|findings)\.md|"
    r"(sweep|model|strategies|chosen_images)\.json|examples/(examples\.json|\d+\.png)|runs/[0-9a-f]{12}/record\.json))"
)
PAPERS = re.compile(r"results/[\w.-]+/paper/paper\.(pdf|tex)")


def refused(names, linked):
    """What does not belong under results/: no side file of a sweep, and no figure, page or paper that is shown."""
    ours = {name for name in linked if name.endswith((".png", ".html", ".pdf"))}
    papers = {name.replace(".pdf", ".tex") for name in ours if PAPERS.fullmatch(name)}
    return [name for name in names if not SIDE_FILE.fullmatch(name) and name not in ours | papers]


def test_results_hold_what_was_measured_and_what_is_shown(root):
    names, linked = committed(root, "results"), set(shown(root))
    assert refused(names, linked) == [], "make report makes it again under build/"
    assert len([name for name in names if name.endswith("report.html")]) == 1
    assert len([name for name in names if name.endswith("paper.pdf")]) == 1


@pytest.mark.parametrize(
    "name",
    [
        "figures/accuracy_vs_memory.svg", "figures/ladder.png", "report.html", "paper/paper.pdf", "paper/paper.tex",
        "runs/0123456789ab/predictions.parquet", "runs/0123456789ab/weights/tuned.safetensors", "notes.txt",
    ],
)  # fmt: skip
def test_anything_else_under_results_is_refused(root, name):
    assert refused([f"results/embedded-seeds/{name}"], set(shown(root))) == [f"results/embedded-seeds/{name}"]


def test_the_tree_is_small(root):
    sizes = [(root / name).stat().st_size for name in committed(root) if (root / name).is_file()]
    assert sum(sizes) <= 25e6, f"{sum(sizes) / 1e6:.1f} MB"


def test_links_of_results_lead_to_committed_files(root):
    names = set(committed(root))
    for page in [name for name in names if re.fullmatch(r"(README|docs/\w+|results/.*)\.md", name)]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", (root / page).read_text()):
            place = (root / page).parent.joinpath(target).resolve().relative_to(root).as_posix()
            assert place in names or any(name.startswith(f"{place}/") for name in names), f"{page}: {target}"


def test_every_committed_sweep_has_hashes_of_its_page_paper_and_figures(root):
    sweeps = {name.split("/")[1] for name in committed(root, "results") if name.endswith("/runs.csv")}
    lines = (root / "results" / "rendered.sha256").read_text().splitlines()
    known = {line.partition("  ")[2] for line in lines}
    assert {name.split("/")[0] for name in known} == sweeps
    for sweep in sweeps:
        assert {f"{sweep}/report.html", f"{sweep}/paper/paper.tex"} <= known, f"python -m report hashes results/{sweep}"
        assert len([name for name in known if name.startswith(f"{sweep}/figures/")]) >= 17


def test_committed_results_name_no_place_of_a_machine(root):
    for name in committed(root, "results"):
        if name.endswith((".json", ".csv", ".md", ".svg")):
            assert not re.search(r"(/home/|/tmp/|/root/|/Users/|_name_or_path)", (root / name).read_text("utf-8")), name
