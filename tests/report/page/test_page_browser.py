"""The page in a real browser, opened from disk: it sorts, filters, plots, compares, and asks for nothing."""

import json
import re

import pandas as pd
import pytest

from report.frames.compare import compare
from report.frames.inference import two_runs
from report.frames.paired import read_scores
from report.frames.results import load
from report.page.build import write_page

SECONDS = 2.0
NASTY = "<script>window.hurt=1</script><img src=x onerror=window.hurt=1>\"'&amp; ∑ü"


def test_the_embedded_sweep_sorts_filters_plots_and_compares(page, embedded):
    page.open(embedded)
    assert "30 runs · 3 seeds" in page.text("#facts")
    quality = [float(text) for text in page.column(3)]
    assert quality == sorted(quality, reverse=True)
    assert page.plot()[:2] == ["peak_allocated_bytes", "vqa_accuracy"]
    assert "qlora8" in page.names()
    page.click("[data-sort=ttt_seconds]")
    seconds = [float(text) for text in page.column(6)]
    assert seconds == sorted(seconds)
    assert page.all("[aria-sort]", "e.innerText.trim().split('\\n')[0]") == ["Time to train (TTT)"]
    page.click("[data-sort=ttt_seconds]")
    assert page.js("return document.querySelector('[aria-sort]').getAttribute('aria-sort')") == "descending"
    page.choose("#search", "lora")
    page.wait(lambda: sorted(page.column(0)) == sorted(["lora", "lora+amp", "qlora", "qlora8"] * 3))
    page.wait(lambda: page.plot()[2] == 12)
    page.choose("#axis-x", "ttt_seconds")
    page.wait(lambda: page.plot()[0] == "ttt_seconds")
    assert "Time to train (TTT) in s, less is better" in page.text("#chart")
    is_it = "e.getAttribute('aria-label').startsWith('qlora, seed 0')"
    spot = f"{is_it} && e.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
    page.all("#chart path[aria-label]", spot)
    assert page.js("return document.getElementById('record').open")
    assert page.text("#record-title") == "qlora, seed 0"
    assert "python run_matrix.py --strategies qlora --seeds 0" in page.text("#record pre.command")
    assert "minus" in page.text("#comparison")


@pytest.mark.slow
def test_the_whole_record_of_a_run(page, embedded):
    page.open(embedded)
    page.choose("#search", "qlora8")
    page.wait(lambda: len(page.column(0)) == 3)
    page.click("#table tbody button")
    assert page.text("#record-title") == "qlora8, seed 0"
    shown = page.text("#record-body")
    for words in (
        "--strategies qlora8 --seeds 0", "Peak memory14.4 MiB", "vqa_accuracy/number", "int8", "environment_hash",
        '"plan":', "Where the time went", "No log here", "lora: ",
    ):  # fmt: skip
        assert words in shown, words
    page.wait(lambda: page.js("return document.querySelectorAll('#record .curve svg.marks').length") == 2)
    (link,) = page.all("#record a[href^=runs]", "e.getAttribute('href')")
    assert link.endswith("/record.json")
    page.click("#record .actions button")
    assert not page.js("return document.getElementById('record').open")
    assert "qlora8, seed 0 minus full, seed 0" in page.text("#comparison")


@pytest.mark.slow
def test_a_comparison_shows_pythons_interval(page, embedded):
    page.open(embedded)
    runs = load(embedded).runs
    scores = read_scores(embedded, runs["run_id"])
    for one, other in ((1, 0), (2, 5), (0, 3)):
        page.choose("#first", one)
        page.choose("#second", other)
        first, second = sorted((one, other))
        gap = scores[runs["run_id"][first]] - scores[runs["run_id"][second]]
        expected, sign = two_runs(gap.to_numpy()), 1 if one == first else -1
        found = page.js("return window.tunematrix.comparison")
        ends = sorted((sign * expected.low, sign * expected.high))
        assert [found["low"], found["high"]] == pytest.approx(ends, abs=1e-6)
        difference = f"{sign * 100 * expected.difference:+.1f} points"
        said = f"{difference} (95 % interval {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"
        assert said.replace("-", "−") in page.text("#comparison")
    page.click("#swap")
    turned = page.js("return window.tunematrix.comparison")
    assert turned["difference"] == -found["difference"]
    assert {turned["verdict"], found["verdict"]} in ({"better", "worse"}, {found["verdict"]})
    page.choose("#second", page.js("return document.getElementById('first').value"))
    assert "the same run twice" in page.text("#comparison")


@pytest.mark.slow
def test_recipes_of_several_seeds(page, made, row):
    folder = made([row(name, seed=seed) for name in ("full", "lora", "freeze") for seed in (0, 1, 2)])
    page.open(folder)
    (comparison,) = compare(load(folder))
    entries = comparison.entries.set_index("label")
    page.click("#grouped")
    page.wait(lambda: page.column(0) == ["full baseline", "lora", "freeze"])
    for name, text in zip(("full", "lora", "freeze"), page.column(3), strict=True):
        low, high = 100 * entries.loc[name, "vqa_accuracy_low"], 100 * entries.loc[name, "vqa_accuracy_high"]
        assert text == f"{100 * entries.loc[name, 'vqa_accuracy']:.1f} {low:.1f}–{high:.1f}"
    page.wait(lambda: page.plot()[2] == 3)
    page.click("#table tbody tr:nth-child(2) button")
    assert "3 runs: 3 ok" in page.text("#record-body")
    page.wait(lambda: len(page.all("#record .curve svg.marks", "1")) == 2)
    page.click("#record-body .list button")
    assert page.text("#record-title") == "lora, seed 0"
    page.click("#record .close")
    assert "As recipes, over other seeds and other questions" in page.text("#comparison")
    assert "3 seeds: differences below about" in page.text("#answer")


@pytest.mark.slow
def test_failures_are_rows_with_their_reasons(page, made, failed, row):
    rows = [row("full"), failed("lora", "oom", "ran out of 8 GiB"), failed("qlora", "refused", "nf4 needs a GPU")]
    rows.append(row("freeze", status="diverged", reason="the loss became NaN", vqa_accuracy=0.99))
    page.open(made(rows))
    assert page.column(2)[1:] == ["ok", "oom: ran out of 8 GiB", "refused: nf4 needs a GPU"]
    assert "3 did not finish" in page.text("#count")
    assert page.plot()[2] == 1, "what did not finish is in no plot, whatever it measured"
    page.choose("#first", 3)
    page.choose("#second", 0)
    assert "freeze, seed 0 did not finish" in page.text("#comparison")
    page.choose("#status", "!ok")
    page.wait(lambda: len(page.column(0)) == 3)
    page.choose("#search", "8 gib")
    page.wait(lambda: page.column(0) == ["lora"])
    assert "Nothing is drawn" in page.text("#chart")
    assert "Did not finish: lora (oom), qlora (refused), freeze (diverged)" in page.text("#answer")
    page.click("#table tbody button")
    assert "ran out of memory, on the device or on the host" in page.text("#record-body")
    assert "history.csv has no rows" in page.text("#record-body")


@pytest.mark.slow
def test_nothing_finished(page, made, failed):
    page.open(made([failed("full", "oom", "too large"), failed("lora", "failed", "died")]))
    assert "No recipe can be named: no finished recipe has" in page.text("#answer")
    assert "No run has peak_allocated_bytes and accuracy" in page.text("#chart")
    assert page.column(0) == ["full baseline", "lora"]


@pytest.mark.slow
def test_one_run_alone(page, made, row):
    page.open(made([row("lora")]))
    assert "Use lora, the only recipe that ends no more than 2 points below the best" in page.text("#answer")
    assert "Choose two runs" in page.text("#comparison")
    assert page.plot()[2] == 1
    page.choose("#reference", "baseline")
    assert "no finished baseline" in page.text("#answer")


@pytest.mark.slow
def test_a_missing_column_is_a_reason_never_a_wrong_plot(page, made):
    page.open(made(drop=("peak_allocated_bytes", "ttt_seconds"), history=False, predictions=False))
    assert "No run has peak_allocated_bytes" in page.text("#chart")
    assert page.js("return document.querySelectorAll('#chart svg.marks').length") == 0
    page.choose("#axis-x", "trainable_parameters")
    page.wait(lambda: page.js("return document.querySelectorAll('#chart svg.marks').length") == 1)
    assert "no two runs have scores by question" in page.text("#comparison")
    assert "No example pictures" in page.text("#examples-table")
    assert "needs memory that was not measured" in page.text("#answer")
    assert "peak_allocated_bytes" in page.text("#column-list")


@pytest.mark.slow
def test_markup_and_strange_signs_stay_text(page, made, row):
    rows = [row("full"), row(NASTY, run_id="aa"), row("lora", run_id="bb", status="failed", reason=NASTY)]
    folder = made(rows)
    answers = pd.DataFrame({"id": [0, 1], "prediction": [NASTY, ""], "probability": [0.5, 0.1], "score": [0.3, 0.0]})
    answers.to_parquet(folder / "runs" / "aa" / "predictions.parquet")
    (folder / "examples").mkdir()
    example = [{"id": 0, "question": NASTY, "answers": [NASTY], "image": "none.png"}]
    (folder / "examples" / "examples.json").write_text(json.dumps(example))
    write_page(folder)
    page.open(folder)
    assert NASTY in page.column(0)
    assert f"failed: {NASTY}" in page.column(2)
    page.click("#grouped")
    page.wait(lambda: NASTY in page.column(0))
    page.all("#table tbody button", "e.textContent.includes('hurt') && e.click()")
    assert page.text("#record-title") == NASTY + ", seed 0"
    assert NASTY in page.text("#examples-table")
    assert NASTY in page.text("#answer")
    assert page.js("return window.hurt === undefined && !document.querySelector('img[src=x]')")


@pytest.mark.slow
def test_settings_are_not_mixed_in_a_plot(page, made, row):
    rows = [row(name, batch_size=size, run_id=f"{name}{size}") for name in ("full", "lora") for size in (32, 64)]
    page.open(made([*rows, row("freeze", batch_size=64)]))
    assert page.plot()[2] == 3
    assert "Setting batch size 64 only" in page.text("#chart-note")
    page.choose("#setting", "1")
    page.wait(lambda: "Setting batch size 32 only" in page.text("#chart-note"))
    assert page.plot()[2] == 2
    page.choose("#first", 0)
    page.choose("#second", 3)
    assert "these runs also differ in batch size (32, 64)" in page.text("#comparison")


@pytest.mark.slow
def test_two_thousand_runs_are_there_within_two_seconds(page, made, row, failed):
    rows = [row("full", seed=seed, run_id=f"full{seed}") for seed in range(10)]
    for recipe in range(199):
        name = f"lora(r={recipe + 1})"
        for seed in range(10):
            changes = {"seed": seed, "run_id": f"{recipe:03d}{seed}"}
            dead = failed(name, "oom", "too large", **changes)
            rows.append(dead if recipe % 20 == 7 else row(name, **changes, ttt_seconds=recipe + 1))
    folder = made(rows, predictions=False)
    page.open(folder)
    assert float(page.js("return document.documentElement.dataset.ready")) <= 1000 * SECONDS
    assert len(page.column(0)) == 100
    assert "2,000 runs of 2,000; 100 did not finish" in page.text("#count")
    page.click("#pages button:last-child")
    assert "rows 101–200 of 2,000" in page.text("#pages")
    page.choose("#search", "r=150)")
    page.wait(lambda: len(page.column(0)) == 10)
    page.click("#reset")
    page.wait(lambda: len(page.column(0)) == 100)
    page.click("#grouped")
    page.wait(lambda: "200 recipes" in page.text("#count"))
    assert re.search(r"too many|no two runs", page.text("#comparison"))
