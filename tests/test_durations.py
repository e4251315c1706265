"""The suite is to take 6 minutes on two cores, and each folder its share of them, as recorded by `make durations`."""

from pathlib import Path

import pytest

from tests.durations import FILE, in_halves, recorded

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 2
MOST_SECONDS, MOST_QUICK_SECONDS, MOST_IN_THE_END = 400, 100, 480  # six minutes and 40 s for models; eight
START_SECONDS = 12  # a process that tests imports and collects
# Seconds of the suite's time, two processes at work. A folder within another is counted there.
SHARES = {
    "tests/bench": 73,
    "tests/examples": 16,
    "tests/notebooks": 22,
    "tests/performance": 9,
    "tests/report": 48,
    "tests/strategies": 146,
    "tests/vqa_model": 49,
    "tests/zoo": 6,
    "tests": 19,
}
LATER = {"tests/reliability": 40}  # rooms that came after those six minutes
TO_COME = {"several devices": 30, "executors": 10}


def share_of(file):
    """The longest folder with a share that the file lies in."""
    return max((folder for folder in SHARES | LATER if file.startswith(f"{folder}/")), key=len)


def taken(part="all"):
    found = dict.fromkeys(SHARES | LATER, 0.0)
    for file, told in recorded().items():
        found[share_of(file)] += told[part] / PROCESSES
    return found


def test_every_file_is_recorded():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    files -= {file for file in files if file.startswith("tests/install/")}
    different = sorted(files ^ recorded().keys())
    named = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
    assert not different, f"{named}: in the tests or in tests/{FILE.name} alone; `make durations` records it anew"


@pytest.mark.parametrize("folder", SHARES | LATER)
def test_a_folder_keeps_to_its_share(folder):
    assert taken()[folder] <= (SHARES | LATER)[folder]


def test_shares_are_those_of_six_minutes_and_of_eight_in_the_end():
    assert START_SECONDS + sum(SHARES.values()) <= MOST_SECONDS
    assert START_SECONDS + sum((SHARES | LATER | TO_COME).values()) <= MOST_IN_THE_END
    assert START_SECONDS + sum(taken("quick").values()) <= MOST_QUICK_SECONDS, "and lint and types in `make check`"


def test_files_are_shared_so_that_neither_half_waits_long():
    known = {name: {"all": seconds} for name, seconds in {"a": 9.0, "b": 1.0, "c": 5.0, "d": 4.0, "e": 0.5}.items()}
    assert in_halves([*known, "new"], known) == ["a", "b", "c", "d", "e", "new"], "10 s and 9.5 s"
