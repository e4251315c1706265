"""Every pair runs or is refused with a reason, as the committed page says; triples by chance."""

import csv
import os
import pickle
import warnings
from hashlib import sha256
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as draw

from strategies import catalogue
from strategies.compatibility.probe import Row as Pair
from strategies.compatibility.probe import as_page, probe_pair, term
from strategies.compatibility.trial import try_plan

WORDS = sorted(catalogue())
ADVICE = "run `make compatibility` and look at the difference"


@pytest.fixture(scope="module")
def page(root):
    with (root / "docs" / "compatibility.csv").open() as file:
        return [Pair(*row[:2], row[2] == "True", *row[3:]) for row in list(csv.reader(file))[1:]]


def test_the_page_covers_the_catalogue(page, root):
    assert [(row.one, row.other) for row in page] == [(a, b) for i, a in enumerate(WORDS) for b in WORDS[i + 1 :]], (
        ADVICE
    )
    assert {row.status for row in page} <= {"ok", "refused", "unverified"}
    assert all(len(row.reason) > 20 for row in page if row.status != "ok")
    apart = [row for row in page if not row.same_slot]
    assert sum(row.status == "ok" for row in apart) >= 0.75 * len(apart)
    lines = (root / "docs" / "compatibility.md").read_text().splitlines()
    fresh = as_page(page).splitlines()
    assert [line for line in lines if not line.startswith("Versions")] == [
        line for line in fresh if not line.startswith("Versions")
    ], ADVICE


@pytest.fixture(scope="module")
def _trials_are_shared(shared_folder):
    """Each sum is tried once, however many pairs it is a part of and whichever process asks."""
    folder = shared_folder / "trials"
    folder.mkdir(exist_ok=True)

    def tried(text):
        file = folder / sha256(text.encode()).hexdigest()
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}")
            part.write_bytes(pickle.dumps(try_plan(text)))
            part.rename(file)
        return pickle.loads(file.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("strategies.compatibility.probe._try_once", tried)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("_trials_are_shared")
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.filterwarnings("ignore")
def test_pairs_are_as_the_page_says(word, page):
    """Every pair that is refused, and a quarter of those that run; `make compatibility` tries all.

    Of those with `compile`, which take ten times as long, it is a twelfth.
    """
    rows = [row for row in page if row.one == word and (row.status != "ok" or drawn(row))]
    for row in rows:
        assert probe_pair((row.one, row.other)) == row, ADVICE


def drawn(row):
    """A share of all pairs, the same ones everywhere."""
    return crc32(f"{row.one}+{row.other}".encode()) % (12 if "compile" in row.tried else 4) == 0


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(words=draw.lists(draw.sampled_from(WORDS), min_size=3, max_size=3, unique=True))
def test_triples_run_or_are_refused(words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome, trace = try_plan("+".join(map(term, words)))
    assert outcome.status in {"ok", "refused", "unverified"}, outcome
    assert (trace is not None) == (outcome.status == "ok")
    assert outcome.status == "ok" or len(outcome.reason) > 20
