"""How long each file of tests takes: `make durations` records it, `test_durations.py` holds its shares.

A plug-in of pytest (`-p tests.durations`) that writes tests/durations.json in the end: seconds of a file's tests, all
and quick ones. `conftest.py` orders files by them, so that what takes longest does not begin last.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

FILE = Path(__file__).with_suffix(".json")
seconds = defaultdict(lambda: {"all": 0.0, "quick": 0.0})


def recorded():
    """Seconds by file, as they were recorded last; empty where nothing was."""
    return json.loads(FILE.read_text("utf-8")) if FILE.exists() else {}


def in_halves(files, known):
    """Files in two halves that take equally long, one for each process, from the longest to the shortest."""
    halves, totals = ([], []), [0.0, 0.0]
    for file in sorted(files, key=lambda file: (-known.get(file, {"all": 0.0})["all"], file)):
        shorter = totals.index(min(totals))
        halves[shorter].append(file)
        totals[shorter] += known.get(file, {"all": 0.0})["all"]
    return halves[0] + halves[1]


def pytest_runtest_logreport(report):
    """Add the seconds of a set-up, a test or what follows it."""
    told = seconds[report.nodeid.partition("::")[0]]
    told["all"] += report.duration
    told["quick"] += 0 if "slow" in report.keywords else report.duration


def pytest_sessionfinish(session, exitstatus):
    """Write what was measured, in the process that heard of all tests, unless they were broken off."""
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not hasattr(session.config, "workerinput"):
        rounded = {file: {part: round(s, 1) for part, s in seconds[file].items()} for file in sorted(seconds)}
        lines = [f"  {json.dumps(file)}: {json.dumps(told)}" for file, told in rounded.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
