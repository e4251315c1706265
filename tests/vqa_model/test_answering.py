"""A saved model with its processor and card: the same answers as in training, from the folder alone."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoProcessor

from vqa_model.answering import Answerer
from vqa_model.processing import VQAProcessor
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
    torch.manual_seed(0)
    return task.build_model().eval()


@pytest.fixture(scope="module")
def folder(task, model, tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "my model"
    task.save_model(model, place, FACTS)
    return place


def asked(task):
    questions = task.eval_set().questions
    return [(task.picture_file(question.image_id), question.text) for question in questions]


def predicted(task, model):
    items = task.eval_set()
    with torch.no_grad():
        return task.predict(model, task.collate([items[place] for place in range(len(items))]))


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_answers_are_those_of_the_task(task, model, folder, batch_size):
    found = Answerer.load(folder).answer_all(asked(task), top=3, batch_size=batch_size)
    for prediction, (best, second, _) in zip(predicted(task, model), found, strict=True):
        assert best.text == prediction["prediction"] or best.probability - second.probability < 1e-5
        assert best.probability == pytest.approx(prediction["probability"], abs=1e-5)


def test_the_objective_decides_how_sure_it_is(task, folder, tmp_path):
    soft = replace(task, objective="soft_bce")
    torch.manual_seed(0)
    model = soft.build_model().eval()
    soft.save_model(model, tmp_path / "soft", {})
    found = Answerer.load(tmp_path / "soft").answer_all(asked(task), top=2)
    for prediction, (best, _) in zip(predicted(soft, model), found, strict=True):
        assert best.probability == pytest.approx(prediction["probability"], abs=1e-5)
    everything = Answerer.load(folder).answer(*asked(task)[0], top=10**6)
    assert sum(answer.probability for answer in everything) == pytest.approx(1, abs=1e-4)
    assert len(everything) == model.config.num_labels


def test_pictures_are_files_or_pictures_of_any_mode(task, folder):
    path, question = asked(task)[0]
    answerer = Answerer.load(folder)
    with Image.open(path) as picture:
        grey = picture.convert("L")
        assert (
            answerer.answer(picture, question)
            == answerer.answer(path, question)
            == answerer.answer(str(path), question)
        )
    assert len(answerer.answer(grey, question, top=2)) == 2
    with pytest.raises(ValueError, match=r"nowhere\.jpg: picture is missing"):
        answerer.answer("nowhere.jpg", question)


def test_a_fresh_process_loads_it_through_the_auto_classes(task, folder):
    code = f"""
import json, sys
import vqa_model.processing
from transformers import AutoConfig, AutoModel, AutoProcessor
from PIL import Image
model, processor = AutoModel.from_pretrained({str(folder)!r}), AutoProcessor.from_pretrained({str(folder)!r})
inputs = processor([Image.open({str(asked(task)[0][0])!r})], ["what is this"])
json.dump([type(processor).__name__, model(**inputs).logits.shape[1], str(inputs["pixel_values"].dtype)], sys.stdout)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    answers = VQATask(data=task.data, min_count=1).describe()["configuration"]["id2label"]
    assert json.loads(done.stdout) == ["VQAProcessor", len(answers), "torch.uint8"]


def test_the_processor_makes_what_training_saw(task, folder):
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, VQAProcessor)
    assert type(AutoImageProcessor.from_pretrained(folder)) is type(processor.image_processor)
    items = task.eval_set()
    batch = task.collate([items[place] for place in range(9)])
    rows = batch["picture_index"].tolist()
    files = dict(zip(rows, [path for path, _ in asked(task)[:9]], strict=True))
    inputs = processor([Image.open(files[row]) for row in sorted(files)], [q for _, q in asked(task)[:9]], rows)
    assert torch.equal(inputs["pixel_values"], batch["pixel_values"])
    width = inputs["input_ids"].shape[1]
    assert torch.equal(inputs["input_ids"], batch["input_ids"][:, :width])
    assert torch.equal(inputs["attention_mask"], batch["attention_mask"][:, :width])
    assert not batch["attention_mask"][:, width:].any()
    long = processor(Image.new("RGB", (9, 9)), "what " * 99)
    assert long["input_ids"].shape == (1, batch["input_ids"].shape[1])
    with pytest.raises(ValueError, match="2 questions on 1 pictures"):
        processor([Image.new("RGB", (9, 9))], ["a", "b"])
    with pytest.raises(ValueError, match="2 questions on 1 pictures"):
        processor([Image.new("RGB", (9, 9))], ["a", "b"], picture_index=[0])


def test_a_processor_survives_being_saved_again(folder, tmp_path):
    first = VQAProcessor.from_pretrained(folder)
    first.save_pretrained(tmp_path)
    again = VQAProcessor.from_pretrained(tmp_path)
    assert again.image_processor.settings == first.image_processor.settings
    assert again.tokenizer("is it red?") == first.tokenizer("is it red?")


def test_weights_in_several_files_and_without_pickles(model, folder, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="300KB")
    VQAProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert not [path for path in folder.iterdir() if path.suffix in {".bin", ".pt", ".pkl", ".py"}]
    again = Answerer.load(tmp_path).model
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert type(AutoModel.from_pretrained(folder)) is type(model)


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


def test_controls_are_no_models(task):
    control = task.controls()["majority-answer"]
    with pytest.raises(ValueError, match="'majority-answer' knows too little"):
        control.save_model(control.build_model(), None, {})


DAMAGES = {
    "no folder": (lambda f: f.rename(f.with_name("gone")), "cannot be loaded as a model"),
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json; name a folder"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "not a model's configuration"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not a model's configuration"),
    "another model": (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), "a model of type 'bert'"),
    "no processor": (lambda f: (f / "processor_config.json").unlink(), "no processor_config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded as a model"),
    "half the weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:999]),
        "cannot be loaded as a model",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_folder_is_one_line(task, model, tmp_path, case, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "model"
    task.save_model(model, place, {})
    damage, message = DAMAGES[case]
    damage(place)
    with pytest.raises(ValueError, match=rf"^[^\n]*model[^\n]*: {message}[^\n]*$"):
        Answerer.load(place)
