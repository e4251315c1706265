"""`make setup` and what follows it, as a stranger meets them: an empty folder, an empty HOME, the system's Python."""

import csv
import re
import runpy
import time

import pytest

ENVIRONMENT = "install/environment.py"


def test_a_newcomer_reads_a_few_short_lines(clone):
    lines = clone.said.splitlines()
    assert 2 <= len(lines) <= 4, lines
    assert all(len(line) < 130 for line in lines)
    assert re.search(r"installing what runs need, about [\d.]+ GB, 1 to 5 minutes", clone.said)
    assert re.fullmatch(r"\.venv: ready after \d+ s, [\d,]+ MB, torch 2\.13\.0(\+cpu)?", lines[-1])


def test_the_environment_for_runs_is_as_small_as_the_readme_says(clone, megabytes, root):
    build = "cpu" if clone.said.rstrip().endswith("+cpu") else "cuda"
    bound = runpy.run_path(str(clone.place / ENVIRONMENT))["MEGABYTES"][build]
    assert 0.8 * bound < megabytes <= bound
    if build == "cpu":
        (told,) = re.findall(r"`make matrix` takes ([\d,]+) MB", (root / "README.md").read_text())
        assert megabytes == pytest.approx(int(told.replace(",", "")), rel=0.05)


def test_what_only_tests_and_pages_take_is_not_there(clone, megabytes):
    installed = {path.name.partition("-")[0].lower() for path in (clone.place / ".venv").rglob("*.dist-info")}
    assert "torch" in installed
    assert megabytes
    tools = {"pytest", "selenium", "mkdocs", "mypy", "ruff", "gradio", "ipykernel", "nbclient", "hypothesis", "torchao"}
    assert not installed & tools


def test_the_second_call_does_nothing(clone, megabytes, stranger):
    log = clone.place / ".venv" / "install.log"
    before = log.read_bytes()
    start = time.monotonic()
    code, said = stranger.make(clone.place, "setup")
    assert code == 0
    assert time.monotonic() - start < 1
    assert "install" not in said
    assert log.read_bytes() == before
    assert megabytes


def test_another_build_of_torch_makes_the_environment_anew(clone, stranger):
    build = (clone.place / ".venv" / ".torch").read_text().strip()
    other = {"cpu": "cuda", "cuda": "cpu"}[build]
    assert stranger.make(clone.place, "-q", "setup", f"TORCH={build}")[0] == 0
    assert stranger.make(clone.place, "-q", "setup", f"TORCH={other}")[0] == 1


def test_make_matrix_runs(clone, megabytes, stranger):
    code, said = stranger.make(clone.place, "matrix", "ARGS=--strategies lora --max-steps 5 --no-baseline")
    assert code == 0, said[-3000:]
    assert megabytes
    (runs,) = (clone.place / "results" / "local").rglob("runs.csv")
    with runs.open() as file:
        assert "ok" in {row["status"] for row in csv.DictReader(file) if row["strategy"] == "lora"}


def test_then_the_tools_of_tests(clone, packages_for_runs, stranger):
    """The last one on this environment: what runs need is measured and set aside before."""
    assert packages_for_runs.exists()
    code, said = stranger.make(clone.place, "tools")
    assert code == 0, said
    assert len(said.splitlines()) <= 3
    code, said = stranger.run([".venv/bin/python", "-m", "pip", "check"], clone.place)
    assert code == 0, said
    code, said = stranger.run([".venv/bin/python", "-m", "pytest", "-q", "tests/test_pins.py"], clone.place)
    assert code == 0, said
    start = time.monotonic()
    assert stranger.make(clone.place, "tools")[0] == 0
    assert time.monotonic() - start < 1
