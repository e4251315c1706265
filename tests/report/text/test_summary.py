"""The page people read: table, sentences, failures, links."""

from report.frames.compare import compare
from report.frames.results import load
from report.text.findings import findings
from report.text.summary import plain, summary, table

TABLE = """\
| strategy | VQA accuracy | accuracy | F1 | precision | recall | TTT | TTT × baseline | peak memory | peak × baseline | trainable parameters | status |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |
| full | 85.2 % | 84.2 % | 80.2 % | 81.2 % | 79.2 % | 31.0 s | 1.00× | 61.0 MiB | 1.00× | 1.31 M (100.0 %) | ok |
| lora+amp (= amp+lora) | 82.9 % | 81.9 % | 77.9 % | 78.9 % | 76.9 % | 34.5 s | 1.11× | 38.0 MiB | 0.62× | 470 K (34.6 %) | ok |
| dora | – | – | – | – | – | – | – | – | – | – | oom |
| *question-only* (control) | 52.2 % | 51.2 % | 47.2 % | 48.2 % | 46.2 % | 30.0 s | – | 60.0 MiB | – | 1.31 M (100.0 %) | ok |"""  # noqa: E501


def first(folder):
    return compare(load(folder))[0]


def page(folder):
    return summary("sweep", compare(load(folder)), {"": ["accuracy_vs_ttt.svg"]})


def test_table(sweep, row, failed):
    rows = [row("question-only"), row("lora+amp"), failed("dora", "oom", "x"), row("full")]
    assert "\n".join(table(first(sweep(rows)))) == TABLE


def test_several_seeds_show_the_spread(sweep, row):
    lines = table(first(sweep([row("full", seed=seed) for seed in (0, 1, 2)])))
    assert "| 85.6 % [85.2–86.0] |" in lines[2]


def test_sentences(sweep):
    said = findings(first(sweep()))
    assert said[0] == (
        "Of the recipes no more than 2 points below full, the one with the lowest peak memory is checkpointing: "
        "it trains 100.0 % of the parameters, takes 1.26× the time and 0.56× the peak memory of full and ends level "
        "with it."
    )
    assert said[1:3] == [
        "No recipe is better than full (85.2 %).",
        "The strongest control, question-only, ends 33.0 points below full.",
    ]
    assert said[3].startswith("One seed only")


def test_sentence_of_a_recipe_that_is_far_below(sweep, row):
    said = findings(first(sweep([row("full"), row("lora", accuracy=0.7, vqa_accuracy=0.7, peak_allocated_bytes=None)])))
    assert said[0] == (
        "No recipe comes within 2 points of full; the nearest is lora: it trains 34.6 % of the parameters, "
        "takes 0.90× the time of full and ends 15.2 points below it."
    )


def test_no_sentence_compares_with_a_baseline_that_is_not_there(sweep, row):
    said = " ".join(findings(first(sweep([row("lora"), row("question-only")]))))
    assert "no single finished baseline" in said
    assert "below" not in said


def test_only_failures(sweep, failed):
    text = page(sweep([failed("full", "oom", "needs 9 GiB | of 4\nGiB"), failed("lora", "refused", "<b>no</b>")]))
    assert "2 of 2 runs did not finish" in text
    assert "| full | 0 | oom | – | needs 9 GiB \\| of 4 GiB |" in text
    assert "\\<b\\>no" in text
    assert "nan" not in text


def test_page_says_how_it_was_run_and_what_words_mean(sweep, row):
    text = page(sweep([row("full", seed=seed) for seed in (0, 1)]))
    for line in ("- seeds: 0, 1", "- threads: 2", "- device: cpu", "- updates: 375", "macro averages"):
        assert line in text
    assert "**TTT** (`ttt_seconds`): time to train" in text
    assert "(figures/accuracy_vs_ttt.svg)" in text


def test_text_of_others_is_escaped():
    assert plain("a|b <i>_*`[x]\n# y") == "a\\|b \\<i\\>\\_\\*\\`\\[x\\] \\# y"
