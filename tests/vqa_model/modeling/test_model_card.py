"""The card that lies with a saved model: what is known and no more, and text from outside stays text."""

import shlex

import pytest
from huggingface_hub import ModelCard

from vqa_model.modeling.model_card import model_card
from vqa_model.predict import make_parser
from vqa_model.task import VQATask

FACTS = {
    "strategy": "lora|x", "plan": "lora", "dataset": "picture-world", "seed": 3, "ttt_seconds": 1234.5, "lr": 1e-3,
    "metrics": {"vqa_accuracy": 0.5, "f1_macro": 0.25, "vqa_accuracy/other": 0.1}, "gpu_name": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def task(small_world):
    return VQATask(data=str(small_world), min_count=1)


@pytest.fixture(scope="module")
def model(task):
    return task.build_model()


@pytest.fixture(scope="module")
def folder(task, model, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "my model"
    task.save_model(model, place, FACTS)
    return place


def test_the_card_says_what_is_known_and_no_more(folder):
    card = ModelCard.load(folder / "README.md")
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {"VQA accuracy (official)": 0.5, "F1, macro": 0.25}
    assert "| recipe | lora\\|x |" in card.content
    assert "1,234.5 s" in card.content
    assert "GPU" not in card.content
    assert "my model" in card.content
    assert "recall" not in card.content


def test_a_card_without_facts_is_a_card(model):
    card = ModelCard(model_card(model, {}, "bare"))
    assert not card.data.eval_results
    assert "## Training" not in card.content
    assert "## Evaluation" not in card.content


def test_the_task_says_what_the_model_learnt_from(task, folder):
    text = ModelCard.load(folder / "README.md").text
    pictures = {question.image_id for question in task.train_set().questions}
    assert f"| training questions | {len(task.train_set())} |" in text
    assert f"| training pictures | {len(pictures)} |" in text
    assert f"| questions evaluated on | {len(task.eval_set())} |" in text
    assert "| objective | cross\\_entropy |" in text
    assert f"list of {len(task._data.vocabulary)} answers" in text
    assert "CC BY 4.0" in text


def test_the_command_on_the_card_is_one_that_a_shell_reads(folder):
    text = ModelCard.load(folder / "README.md").text
    command = next(line for line in text.splitlines() if line.startswith("python -m vqa_model.predict"))
    words = make_parser().parse_args(shlex.split(command)[3:])
    assert (words.model, words.question) == ("my model", "What color is the car?")


def test_text_from_outside_stays_text(task, model, tmp_path):
    facts = {"dataset": "evil: [x](http://y)\n---\n# title | <script>", "metrics": {"accuracy": 1.0}}
    task.save_model(model, tmp_path / "odd", facts)
    content = (tmp_path / "odd" / "README.md").read_text()
    assert content.count("\n# ") == 1
    assert "\n---\n# title" not in content
    card = ModelCard(content)
    assert "\\<script\\>" in card.text
    assert "<script>" not in card.text.replace("\\<", "").replace("\\>", "")
    assert card.data.eval_results[0].dataset_name == "evil: [x](http://y) --- # title | <script>"
