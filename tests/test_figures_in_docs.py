"""Figures in the prose of the FAQ and of the guide are those of the committed sweeps; no other figure stands there."""

import re
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from strategies.language.catalogue import catalogue

ROOT = Path(__file__).resolve().parent.parent
MIB = 2**20
NUMBER = re.compile(r"(?<![\w.#/-])\d+(?:,\d{3})*(?:\.\d+)?(?:e-\d+)?(?!\w)")


@cache
def runs(folder):
    found = pd.read_csv(ROOT / "results" / folder / "runs.csv")
    return found[found.kind.isin(["baseline", "run"]) & (found.status == "ok")]


def one(folder, strategy, column, batch=None):
    """Give a value of the only run of a recipe."""
    rows = runs(folder)
    rows = rows[(rows.strategy == strategy) & ((rows.batch_size == batch) | (batch is None))]
    (value,) = rows[column]
    return float(value)


def h200(strategy, column):
    return one("gpu-h200", strategy, column, 256)


def h100(strategy, column):
    return one("gpu-h100-80gb-hbm3", strategy, column, 64)


def scores(folder, strategy):
    return 100 * runs(folder)[lambda rows: rows.strategy == strategy].vqa_accuracy


def spread(folder, strategy):
    return [f"{scores(folder, strategy).min():.1f}", f"{scores(folder, strategy).max():.1f}"]


def off(folder, batch, *, compiled):
    """Give the shares, in percent and without sign, by which peaks are predicted wrongly; lowest and highest."""
    rows = runs(folder)[lambda rows: (rows.batch_size == batch) & (rows.strategy.str.contains("compile") == compiled)]
    shares = 100 * (rows.predicted_peak_bytes / rows.peak_allocated_bytes - 1).abs()
    return [f"{shares.min():.1f}", f"{shares.max():.1f}"]


def times(folder, strategy):
    """Give the median over seeds of a recipe's time to train in those of full fine-tuning."""
    by_seed = runs(folder).set_index(["strategy", "seed"]).ttt_seconds
    return f"{(by_seed[strategy] / by_seed['full']).median():.2f}"


def speed(of, strategy):
    return f"{of(strategy, 'samples_per_second'):,.0f}"


def beside(column):
    return f"{(h100('full', 'peak_device_bytes') - h100('full', column)) / MIB:,.0f}"


def swing_of_rates():
    """Give by how much a rate moves a recipe on the tune set, and how far recipes at their best rates lie apart."""
    first = runs("embedded-tuned").drop_duplicates("strategy")
    tried = first.tuned_rates.str.findall(r"=(\S+)").map(lambda found: [100 * float(score) for score in found])
    best = runs("embedded-tuned").groupby("strategy").vqa_accuracy.mean()
    moved = tried.map(max) - tried.map(min)
    return f"{moved.max():.0f}", f"{-(-100 * (best.max() - best.min()) // 1):.0f}"


def behind():
    """Give how far `amp+compile` is behind `amp` after its updates, and after how many it would be level."""
    steps = h200("amp", "steps")
    late = h200("amp+compile", "ttt_seconds") - h200("amp", "ttt_seconds")
    per_step = 256 / h200("amp", "samples_per_second") - 256 / h200("amp+compile", "samples_per_second")
    gained = h200("amp+compile", "samples_per_second") / h200("amp", "samples_per_second")
    return f"{gained:.2f}", f"{steps:.0f}", f"{late:.1f}", steps + late / per_step


def share(strategy, digits):
    of_full = h200(strategy, "peak_allocated_bytes") / h200("full", "peak_allocated_bytes")
    return f"{100 * of_full:.{digits}f}"


def savings(strategy, batch):
    """Give a recipe's peak in that of full fine-tuning, of the tiny model on a CPU."""
    of = runs("embedded-sizes")[lambda rows: (rows.model == "tiny") & (rows.batch_size == batch)]
    peaks = of.set_index("strategy").peak_allocated_bytes
    return f"{peaks[strategy] / peaks['full']:.2f}"


def predicted_median():
    return f"{100 * pd.read_csv(ROOT / 'docs' / 'predictions.csv').error.abs().median():.2f}"


def lora_option(name):
    return f"{getattr(catalogue()['lora'](), name)}"


LEAN = "nf4+lora+amp+checkpointing"
PLANNED = {"10.3", "4.8", "0.7"}  # `run_matrix.py plan`, which the text names
# What is no measurement: sizes, bits, batches, rates, limits, counts of tests.
FAQ = {
    1: [predicted_median(), *off("gpu-h200", 256, compiled=False), *off("gpu-h200", 256, compiled=True),
        *off("gpu-h100-80gb-hbm3", 64, compiled=False), *PLANNED, "64"],
    2: [speed(h100, "lora+amp"), speed(h100, "amp"), "64", "0.82", "16"],
    3: [*(savings(name, batch) for name in ("lora", "lora+checkpointing") for batch in (16, 64, 256)),
        "16", "64", "256"],
    5: [*swing_of_rates(), lora_option("r"), lora_option("alpha")],
    6: [*spread("embedded-adapters", "full"), *spread("embedded-adapters", "lora"), *spread("embedded-seeds", "full")],
    8: ["1"],
    9: [times("embedded-bonus", "amp"), times("embedded", "lora+amp")],
    10: [speed(h100, LEAN), speed(h100, "amp+checkpointing"), "4", "8", "64",
         *(f"{h100(name, 'peak_allocated_bytes') / MIB:,.0f}" for name in (LEAN, "amp+checkpointing")),
         share(LEAN, 0), share(f"{LEAN}+group_by_image", 1)],
    11: ["16", "32"],
    12: [f"{scores('embedded-seeds', 'full').max() - scores('embedded-seeds', 'full').min():.0f}", "71", "75", "5"],
    13: [beside("peak_allocated_bytes"), beside("peak_reserved_bytes"), "64"],
    14: ["4", "2e-3", "1e-6"],
    15: [*behind()[:3], "527", speed(h100, "amp+compile"), speed(h100, "amp"), "256", "64",
         times("slice-bonus", "freeze(scope='vision')+cache_features"), times("slice-bonus", "freeze(scope='vision')")],
}  # fmt: skip
CHOOSING = [
    *(times("embedded-bonus", name) for name in ("accumulate", "adamw8bit", "adafactor", "galore")),
    *(speed(h100, name) for name in ("amp", "amp+checkpointing", LEAN, "amp+group_by_image")),
    f"{h200('amp+group_by_image', 'samples_per_second') / h200('amp', 'samples_per_second'):.2f}",
    f"{h200('amp', 'samples_per_second') / h200('full', 'samples_per_second'):.1f}",
    f"{h100('amp', 'samples_per_second') / h100('full', 'samples_per_second'):.1f}",
    *PLANNED, "16", "64", "256",
]  # fmt: skip


def prose(text):
    """Take away tables made by the report, code, addresses and headings: what is left is typed by hand."""
    text = re.sub(r"<!-- table .*?<!-- end of table -->", "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*$|^\d+\. |\]\([^)]*\)|ViT-B/16|decision \d+|Notebook \d+", " ", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`]*`", " ", text)
    return re.sub(r"\[[\w-]+#\d+", " ", text)


def told(text):
    return set(NUMBER.findall(prose(text)))


def answers():
    pieces = re.split(r"^## (\d+)\. ", (ROOT / "docs" / "faq.md").read_text(), flags=re.MULTILINE)
    return {int(number): text.partition("\n")[2] for number, text in zip(pieces[1::2], pieces[2::2], strict=True)}


@pytest.mark.parametrize("number", range(1, 16))
def test_figures_of_an_answer_are_measured(number):
    assert told(answers()[number]) == set(FAQ.get(number, []))


def test_figures_of_the_guide_are_measured():
    assert told((ROOT / "docs" / "choosing.md").read_text()) == set(CHOOSING)


def test_the_update_from_which_compiling_pays():
    assert behind()[3] == pytest.approx(527, abs=5), "the summary says it in epochs"


@pytest.mark.parametrize("number", range(1, 16))
def test_answers_are_short(number):
    lines = [line for line in prose(answers()[number]).splitlines() if not line.startswith("|")]
    sentences = re.findall(r"[.:?!](?:\s|$)", " ".join(" ".join(lines).split()))
    assert 2 <= len(sentences) <= 9
