"""What the paper says of a sweep is true of it: one seed or several, names that stand for sums, what was compared."""

import json
import re

import pytest

from report.frames.compare import compare
from report.frames.results import load
from report.paper.build import begin_sentence, compose
from report.paper.facts import threats
from report.paper.results import negative_sentences, recipe_expansions, significance_sentence, verdict_sentences


def words(folder):
    """The paper's LaTeX on one line, without where a name may be broken."""
    return " ".join(compose(folder)[0].split(r"\begin{document}")[1].replace(r"\allowbreak{}", "").split())


def first(folder):
    return compare(load(folder))[0]


def seeded(row, *names, seeds=(0, 1, 2), **changes):
    return [row(name, seed=seed, **changes) for seed in seeds for name in names]


def test_names_that_stand_for_sums_are_spelled_out(sweep):
    said = [
        " ".join(sentence.replace(r"\allowbreak{}", "").split()) for sentence in recipe_expansions([first(sweep())])
    ]
    assert r"\texttt{qlora} for \texttt{lora+nf4}" in said
    assert not [sentence for sentence in said if "lora+amp" in sentence], "its order alone differs"
    assert r"\texttt{qlora} for \texttt{lora+nf4}" in words(sweep(name="whole"))


def test_the_statistics_described_are_those_that_were_used(sweep, row):
    one, several = words(sweep()), words(sweep(seeded(row, "full", "lora"), name="several"))
    assert "bootstrap" in one
    assert "McNemar" in one
    assert "Holm's method" not in one
    assert "bootstrap" not in several
    assert "Student's" in several
    assert "Student's" not in one


def test_abstract_and_conclusion_say_whether_recipes_can_be_told_apart(sweep, row):
    folder = sweep(seeded(row, "full", "lora", "freeze"))
    told = significance_sentence(first(folder))
    assert told.startswith("With $p$ corrected for 2 comparisons")
    text = words(folder)
    assert text.partition(r"\end{abstract}")[0].count("corrected for 2 comparisons") == 1
    assert "corrected for 2 comparisons" in text.partition(r"\section{Conclusion}")[2]
    one = words(sweep(name="one"))
    assert "--seeds" not in one.replace(r"\/", ""), "no advice about a command line"
    assert "these differences are between trained models" in one.partition(r"\section{Conclusion}")[2]


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        (["lora"], "1 comparison no difference in quality remains: this sweep does not say which recipe is better."),
        (["freeze"], r"1 comparison \texttt{freeze} differs from the baseline in quality."),
        (["lora", "freeze"], r"2 comparisons \texttt{freeze} differs from the baseline in quality; every other"),
    ],
)
def test_only_what_holm_leaves_is_called_a_difference(sweep, row, recipes, said):
    """Of these made-up recipes `freeze` is 8 points worse in each seed, p = 0.004; `lora` 2 points, p = 0.12."""
    comparison = first(sweep(seeded(row, "full", *recipes)))
    assert (
        significance_sentence(comparison).removesuffix(" difference may be chance.") == f"With $p$ corrected for {said}"
    )


def test_a_difference_that_holm_does_not_leave_is_none(sweep, row):
    comparison = first(sweep(seeded(row, "full", "freeze")))
    comparison.paired["p_holm"] *= 20  # as of twenty comparisons; p itself stays below 0.05
    assert "no difference in quality remains" in significance_sentence(comparison)
    assert verdict_sentences(comparison)[-1] == "Corrected for 1 comparison by Holm's method, no difference remains."


def test_times_that_seeds_do_not_agree_on_are_no_finding(sweep, row):
    rows = seeded(row, "full") + [row("lora", seed=s, ttt_seconds=31 * t) for s, t in ((0, 0.9), (1, 1.5), (2, 1.0))]
    assert not [said for said in negative_sentences(first(sweep(rows))) if "time" in said]
    once = negative_sentences(first(sweep([row("full"), row("compile")], name="once")))
    (said,) = (said for said in once if "time" in said)
    assert "in one run" in said


def test_memory_is_compared_with_something_that_has_a_name(sweep, row):
    said = " ".join(negative_sentences(first(sweep([row("full"), row("lora", peak_allocated_bytes=1e9)]))))
    assert "needed more memory than full fine-tuning" in said


def test_without_a_recipe_nothing_is_claimed_of_recipes(sweep, row):
    text = words(sweep(seeded(row, "full")))
    assert "No recipe took longer" not in text
    assert "No recipe finished beside the baseline" in text


@pytest.mark.parametrize(("seeds", "said"), [(range(3), True), (range(12), False)])
def test_many_seeds_are_not_called_few(sweep, row, seeds, said):
    comparison = first(sweep(seeded(row, "full", "lora", seeds=seeds)))
    found = " ".join(threats([comparison], {}, {"made_up": True, "questions": None}))
    assert ("intervals over so few are wide" in found) == said


def test_few_questions_are_a_threat(sweep):
    folder = sweep()
    assert "Only 200 questions are evaluated" in words(folder)


def test_random_encoders_are_not_called_pretrained(sweep, row):
    text = words(sweep([row(name, setting="towers=random, 2 epochs") for name in ("full", "lora")]))
    assert "random weights" in text.partition("Threats")[2]
    assert "both pretrained" not in text


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_description_of_the_model_tells_random_encoders_too(sweep, pretrained):
    """A model without weights to start from is random under any options."""
    folder = sweep()
    vision = {"model_type": "vit", "num_hidden_layers": 1, "hidden_size": 2, "patch_size": 1, "image_size": 2}
    text = {"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 2, "vocab_size": 9}
    model = {"configuration": {"vision_config": vision, "text_config": text}}
    (folder / "model.json").write_text(json.dumps({**model, "pretrained": {"vision": True, "text": pretrained}}))
    assert words(folder).count("random weights") == (0 if pretrained else 2)


def test_settings_are_named_in_words(sweep, row):
    rows = [row(name, batch_size=size, run_id=f"{name}{size}") for size in (64, 8) for name in ("full", "lora")]
    text = words(sweep(rows))
    assert "batch size 64" in text
    assert r"batch\_size" not in text
    assert not re.search(r"says\s*\.", text)
    assert "with 1 seed and the same evaluation, in 2 settings; what follows is of the largest." in text


def test_negative_numbers_have_a_minus(sweep, row):
    text = words(sweep(seeded(row, "full", "freeze")))
    assert re.search(r"\$-\$\d+\.\d to", text)


def test_a_sentence_does_not_change_the_name_of_a_module():
    assert begin_sentence("torch.optim.Adafactor for matrices") == "torch.optim.Adafactor for matrices"
    assert begin_sentence("matrices first.") == "Matrices first."
