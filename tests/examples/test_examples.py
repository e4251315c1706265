"""Every example runs as a reader would run it, and what it prints is what it promises."""

import csv
import re
import runpy
import sys

import pytest

from tests.scripts import forked

NUMBER = re.compile(r"\d+\.\d+|\d[\d,]*")
SAME = "True"

pytestmark = pytest.mark.usefixtures("forks")


def table(root, tmp_path, example, *plans):
    """Run an example on `plans`; give what it printed, and the cells of each plan's row after its name."""
    text = forked(root / "examples" / f"{example}.py", "--strategies", ", ".join(plans), cwd=tmp_path)
    assert list(tmp_path.iterdir()) == [], "an example leaves nothing behind"
    lines = text.splitlines()
    rows = {plan: line.removeprefix(plan).split() for plan in plans for line in lines if line.startswith(f"{plan} ")}
    assert list(rows) == list(plans)
    return text, rows


def all_examples(root):
    return sorted(path.stem for path in (root / "examples").glob("*.py"))


def test_every_example_is_tested_here(root):
    text = (root / "tests" / "examples" / "test_examples.py").read_text()
    ways = ('"{}"', "{}.py", "examples.{}:")
    assert [name for name in all_examples(root) if not any(way.format(name) in text for way in ways)] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [
        "bert_text_classifier",
        "gpt2_language_model",
        "hf_accelerate",
        "hf_trainer",
        "llama_language_model",
        "plain_cnn",
        "vit_image_classifier",
    ],
)
def test_help_says_what_one_learns(root, monkeypatch, capsys, example):
    """In this process, which has torch already: six more would take half a minute to say the same."""
    monkeypatch.setattr(sys, "argv", [f"{example}.py", "--help"])
    monkeypatch.syspath_prepend(root / "examples")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(root / "examples" / f"{example}.py"), run_name="__main__")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for words in ("--strategies", "One learns", f"python examples/{example}.py"):
        assert words in printed


@pytest.mark.slow
def test_bert_adapters_learn_what_a_frozen_body_cannot(root, tmp_path):
    text, rows = table(root, tmp_path, "bert_text_classifier", "lora(lr=1e-2)", "freeze")
    assert float(rows["lora(lr=1e-2)"][0]) >= 0.9
    assert float(rows["freeze"][0]) <= 0.8
    assert [row[-1] for row in rows.values()] == [SAME, SAME]
    assert "4 layers merged" in text
    (moved,) = re.findall(r"outputs moved by at most (\S+)", text)
    assert float(moved) < 1e-4
    assert "nothing to merge" in text


@pytest.mark.slow
def test_gpt2_perplexity_falls_and_a_tied_head_rests(root, tmp_path):
    text, rows = table(root, tmp_path, "gpt2_language_model", "lora(lr=2e-2)", "freeze")
    before, after, trainable, _, same, *continued = rows["lora(lr=2e-2)"]
    assert float(after) < 2
    assert float(before) > 5
    assert trainable == "3,072", "2 blocks × (48 × 8 + 8 × 144): the fused Conv1D, and no head"
    assert same == SAME
    assert " ".join(continued).startswith("nine eight seven")
    assert "2 layers merged" in text
    assert rows["freeze"][0] == "refused:"
    assert "nothing is left to train" in text


@pytest.mark.slow
def test_llama_in_bf16_is_tuned_loaded_in_a_new_process_and_merged(root, tmp_path):
    text = forked(root / "examples" / "llama_language_model.py", cwd=tmp_path)
    assert "adapters   14 Linear → lora: model.layers 0–1 × (self_attn.q_proj, " in text, "7 linear layers a block"
    assert "17,408 of       101,952 parameters" in text, "8 × (inputs + outputs) of each, and no lm_head"
    ((before, after),) = re.findall(r"loss +(\S+) → (\S+)", text)
    assert float(before) > 2
    assert float(after) < 0.3
    assert "same outputs: True" in text
    (drift,) = re.findall(r"worst relative drift (\S+)", text)
    assert float(drift) < 2**-7, "a step of bf16 at 1"
    assert "continued  nine eight seven six" in text


@pytest.mark.slow
def test_convolutions_learn_and_frozen_norms_keep_their_statistics(root, tmp_path):
    plans = {"full(lr=1e-3)": "4", "lora(lr=3e-3)": "0", "freeze(last_n=1)": "1", "freeze": "0"}
    _, rows = table(root, tmp_path, "plain_cnn", *plans)
    for plan, moved in plans.items():
        accuracy, _, _, same, *norms = rows[plan]
        assert float(accuracy) >= 0.85, "chance is 0.2"
        assert same == SAME
        assert norms == [moved, "of", "4"]
    assert rows["lora(lr=3e-3)"][1] == "6,245", "3 × (24 × 8 × 9 + 8 × 24) + the head's 485"


@pytest.mark.slow
def test_vit_adapters_beat_a_frozen_body(root, tmp_path):
    _, rows = table(root, tmp_path, "vit_image_classifier", "lora(lr=3e-3)", "freeze")
    assert float(rows["lora(lr=3e-3)"][0]) >= 0.88
    assert 0.6 < float(rows["freeze"][0]) < float(rows["lora(lr=3e-3)"][0])
    assert rows["lora(lr=3e-3)"][3] == rows["freeze"][3] == SAME


@pytest.mark.slow
def test_trainer_does_what_our_loop_does(root, tmp_path):
    plans = ["lora(lr=1e-2)", "accumulate(n=2)+lora(lr=1e-2)"]
    _, rows = table(root, tmp_path, "hf_trainer", *plans)
    for first, last, apart, checkpoint, whole, resumed, loaded in rows.values():
        assert float(last) < float(first) / 2
        assert float(apart) <= 1e-6
        assert int(checkpoint.replace(",", "")) < int(whole.replace(",", "")) / 10
        assert resumed == loaded == SAME


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_does_what_our_loop_does(root, tmp_path, processes):
    command = [root / "examples" / "hf_accelerate.py", "--strategies", "amp(dtype='bf16'), lora(lr=1e-2)"]
    text = forked(*command, cwd=tmp_path, ranks=processes)
    (refused,) = [line for line in text.splitlines() if line.startswith("amp")]
    assert refused.endswith("Accelerator(mixed_precision='bf16')")
    (row,) = [line for line in text.splitlines() if line.startswith("lora")]
    first, last, apart, state, whole, number, loaded = row.removeprefix("lora(lr=1e-2)").split()
    assert float(last) < float(first) / 2
    assert float(apart) <= 1e-6
    assert int(state.replace(",", "")) < int(whole.replace(",", "")) / 10
    assert (int(number), loaded) == (processes, SAME)


@pytest.mark.slow
def test_tune_your_own_model_learns(root, tmp_path):
    text = forked(root / "examples" / "tune_your_own_model.py", "lora(r=4)", cwd=tmp_path)
    losses = [float(value) for value in re.findall(r"loss (\S+)", text)]
    assert losses[-1] < losses[0]
    (accuracy,) = re.findall(r"accuracy after loading: (\S+)", text)
    assert float(accuracy) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "plan", "least"),
    [
        ("examples.digits_task:DigitsTask(limit=400)", "full(lr=1e-3)", 0.5),
        ("examples.sentences_task:SentencesTask", "full(lr=1e-3)", 0.9),
    ],
)
def test_a_task_of_ones_own_runs(run_matrix, tmp_path, task, plan, least):
    out = tmp_path / "out"
    done = run_matrix("--task", task, "--strategies", plan, "--no-baseline", "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with (out / "runs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["status"] == "ok"
    assert float(row["accuracy"]) >= least
