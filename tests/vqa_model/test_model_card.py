"""The card that lies with a saved model: what is known and no more, and text from outside stays text."""

import pytest
from huggingface_hub import ModelCard

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


def test_a_card_without_facts_is_a_card(task, model, tmp_path):
    task.save_model(model, tmp_path / "bare", {})
    card = ModelCard.load(tmp_path / "bare" / "README.md")
    assert not card.data.eval_results
    assert "## Training" not in card.content


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
