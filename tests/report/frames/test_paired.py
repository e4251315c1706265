"""Recipes against the baseline, paired by seed and question: the frame, the file and what the page says."""

import numpy as np
import pandas as pd
import pytest

from bench.records.record import COMPARISON_COLUMNS
from report.errors import ReportError
from report.frames.compare import compare
from report.frames.inference import BETTER, EQUAL, UNKNOWN, WORSE
from report.frames.results import load
from report.text.verdicts import verdict_lines
from report.write import write

QUESTIONS = 300


@pytest.fixture
def seeds(sweep, row, predictions):
    """A sweep of full and the named recipes, two or more seeds; `scores(name, seed, random)` gives their scores."""

    def make(scores, names=("full", "lora"), seeds=(0, 1, 2)):
        rows = [row(name, seed=seed) for seed in seeds for name in names]
        folder = sweep(rows)
        for one in rows:
            predictions(folder, one, scores(one["strategy"], one["seed"], np.random.default_rng(one["seed"])))
        return folder

    return make


def frame(folder):
    return compare(load(folder))[0].paired


def verdicts(folder):
    found = frame(folder)
    return found[found["level"] == "recipe"].set_index("strategy")["verdict"].to_dict()


def by_seed(name, seed, random):
    """Seeds move everything together, by far more than recipes differ; qlora is always 10 points below."""
    right = random.random(QUESTIONS) < 0.5 + 0.15 * seed
    right[:30] = name != "qlora"
    return right.astype(float)


def test_what_a_seed_moves_in_both_cancels(seeds):
    folder = seeds(by_seed, names=("full", "lora", "qlora"))
    assert verdicts(folder) == {"lora": EQUAL, "qlora": WORSE}


def test_a_gap_that_comes_and_goes_with_the_seed_cannot_be_told(seeds):
    def scores(name, seed, random):
        return (random.random(QUESTIONS) < (0.9 if name == "lora" and seed == 1 else 0.6)).astype(float)

    folder = seeds(scores)
    assert verdicts(folder) == {"lora": UNKNOWN}
    runs = frame(folder).query("level == 'run'").set_index("seeds")["verdict"]
    assert runs["1"] == BETTER, "of those two trained models it can be told"


def test_one_seed_tells_of_runs_never_of_recipes(seeds):
    folder = seeds(by_seed, names=("full", "qlora"), seeds=(0,))
    found = frame(folder).set_index("level")
    assert found.loc["recipe", "verdict"] == UNKNOWN
    assert pd.isna(found.loc["recipe", "low"])
    assert found.loc["run", "verdict"] == WORSE
    said = "\n".join(verdict_lines(compare(load(folder))[0]))
    assert "**cannot be told (one seed)**" in said
    assert "- worse than the run of `full`: `qlora`" in said
    assert "| `qlora` | 0 | -10.0 |" in said


def test_questions_are_matched_by_id_not_by_place(seeds, row, predictions):
    folder = seeds(by_seed)
    turned = row("lora", seed=2)
    scores = by_seed("lora", 2, np.random.default_rng(2))
    predictions(folder, turned, scores[::-1], ids=range(QUESTIONS)[::-1])
    assert verdicts(folder) == {"lora": EQUAL}


def test_a_run_without_predictions_is_left_out(seeds, row):
    folder = seeds(by_seed)
    (folder / "runs" / row("lora", seed=0)["run_id"] / "predictions.parquet").unlink()
    (folder / "runs" / row("full", seed=1)["run_id"] / "predictions.parquet").unlink()
    assert frame(folder)["seeds"].tolist() == ["2", "2"]


def test_without_predictions_nothing_is_claimed(sweep):
    folder = sweep(predictions=False)
    assert frame(folder).empty
    write(folder, "summary")
    assert (folder / "comparisons.csv").read_text() == ",".join(COMPARISON_COLUMNS) + "\n"
    assert "### Better" not in (folder / "summary.md").read_text()


def test_damaged_predictions_are_named(seeds, row):
    folder = seeds(by_seed)
    path = folder / "runs" / row("lora", seed=0)["run_id"] / "predictions.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReportError, match=r"predictions\.parquet: not readable"):
        frame(folder)


def test_file_and_page(seeds):
    folder = seeds(by_seed, names=("full", "lora", "qlora"))
    write(folder, "summary")
    table = pd.read_csv(folder / "comparisons.csv")
    assert list(table) == list(COMPARISON_COLUMNS)
    assert table["level"].tolist() == ["recipe"] * 2 + ["run"] * 6
    assert (table.loc[:1, "p_holm"] >= table.loc[:1, "p"]).all()
    page = (folder / "summary.md").read_text()
    assert "- equal to `full` within 1 point: `lora`" in page
    assert "- worse than `full`: `qlora`" in page
    assert "| `lora` | 0, 1, 2 | +0.0 | +0.0 to +0.0 | 1.000 | 1.000 | equal |" in page
    assert "Corrected for that (Holm), `qlora` still differs." in page
