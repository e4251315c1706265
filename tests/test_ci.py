"""`.ci/run`: one step that fails fails all, nothing it says is lost, and the seconds of each stand at the end."""

import os
import re
import shutil
import subprocess

import pytest

STEPS = {
    "packages": "make tools",
    "types": "make typecheck",
    "site": "make site",
    "lint": "make lint",
    "results": "python -m report --check",
    "installation": "make test-install",
    "tests": "make test",
}
PROGRAM = """#!/bin/sh
echo "ran $(basename "$0") $*"
[ "$(basename "$0") $*" != "$FAILS" ]
"""


@pytest.fixture
def ci(root, tmp_path):
    """Run it with programs that only say how they were called; one of them may fail."""
    place = tmp_path / "project"
    for name in ("bin/make", "bin/chromedriver", "bin/latexmk", ".venv/bin/python"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(PROGRAM)
        (place / name).chmod(0o755)
    (place / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", place / ".ci")

    def run(fails=""):
        environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "FAILS": fails}
        environment["TMPDIR"] = str(tmp_path)
        done = subprocess.run(
            [place / ".ci" / "run"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert [path.name for path in tmp_path.iterdir()] == ["project"], "what was kept meanwhile is gone"
        said, _, seconds = done.stdout.partition("== seconds\n")
        return done.returncode, re.findall("^ran (.*)$", said, re.MULTILINE), seconds.splitlines()

    return run


def test_every_step_runs_once_and_tells_its_seconds(ci):
    code, ran, seconds = ci()
    assert code == 0
    assert sorted(ran) == sorted(STEPS.values())
    assert ran[0] == STEPS["packages"]
    assert ran[-2:] == [STEPS["installation"], STEPS["tests"]]
    assert sorted(line.split()[0] for line in seconds) == sorted([*STEPS, "all"])
    assert all(re.fullmatch(r"\w+ +\d+ s", line) for line in seconds)
    assert seconds[-1].startswith("all ")


@pytest.mark.parametrize("step", STEPS)
def test_one_that_fails_fails_all_and_is_shown(step, ci):
    code, ran, seconds = ci(fails=STEPS[step])
    assert code != 0
    assert STEPS[step] in ran
    assert [line.split()[0] for line in seconds if line.endswith("failed")] == [step]
    if step != "tests":
        assert STEPS["tests"] not in ran, "minutes of tests of what cannot land"
