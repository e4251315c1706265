"""A saved model with its processor and card: the same answers as in training, from the folder alone."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save
from transformers import AutoImageProcessor, AutoModel, AutoProcessor

from tests.scripts import forked_code
from vqa_model.answering.answerer import Answerer
from vqa_model.modeling.processing import VQAProcessor
from vqa_model.modeling.towers import SHIPPED
from vqa_model.task import VQATask


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
    task.save_model(model, place, {})
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


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_a_fresh_process_loads_it_through_the_auto_classes(task, folder, tmp_path):
    code = f"""
import json, sys
import vqa_model.modeling.processing
from transformers import AutoConfig, AutoModel, AutoProcessor
from PIL import Image
model, processor = AutoModel.from_pretrained({str(folder)!r}), AutoProcessor.from_pretrained({str(folder)!r})
inputs = processor([Image.open({str(asked(task)[0][0])!r})], ["what is this"])
json.dump([type(processor).__name__, model(**inputs).logits.shape[1], str(inputs["pixel_values"].dtype)], sys.stdout)
"""
    printed = forked_code(code, cwd=tmp_path)
    answers = VQATask(data=task.data, min_count=1).describe()["configuration"]["id2label"]
    assert json.loads(printed.splitlines()[-1]) == ["VQAProcessor", len(answers), "torch.uint8"]


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


@pytest.mark.parametrize("name", ["majority-answer", "question-only"])
def test_controls_are_no_models(task, name):
    control = task.controls()[name]
    with pytest.raises(ValueError, match=f"'{name}' knows too little"):
        control.save_model(control.build_model(), None, {})


@pytest.mark.parametrize("device", ["cuda:99", "moon", "meta"])
def test_a_device_that_cannot_compute_is_one_line(folder, device):
    with pytest.raises(ValueError, match=rf"^device '{device}' cannot be used here [^\n]*; cpu always can$"):
        Answerer.load(folder, device)


def test_what_cannot_be_asked_is_refused(folder):
    answerer, picture = Answerer.load(folder), Image.new("RGB", (9, 9))
    for settings, message in (({"top": 0}, "top 0 is below 1"), ({"batch_size": -1}, "batch_size -1 is below 1")):
        with pytest.raises(ValueError, match=message):
            answerer.answer_all([(picture, "what")], **settings)
    with pytest.raises(ValueError, match="question 2 of 2 has no words"):
        answerer.answer_all([(picture, "what"), (picture, " ")])
    assert answerer.answer_all([]) == []


def test_a_saved_model_does_not_say_where_its_towers_lay(task, folder):
    fields = json.loads((folder / "config.json").read_text())
    assert not fields["vision_config"].get("_name_or_path")
    assert not fields["text_config"].get("_name_or_path")
    texts = [path.read_text() for path in folder.iterdir() if path.suffix in {".json", ".md"}]
    assert not [text for text in texts if str(SHIPPED.parent) in text or task.data in text]
    assert task._towers["vision"].config.name_or_path == str(SHIPPED / "vision")


def test_pictures_are_encoded_once_per_batch(task, folder):
    answerer, seen = Answerer.load(folder), []
    hook = answerer.model.vision.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(len(inputs["pixel_values"])), with_kwargs=True
    )
    path, picture = asked(task)[0][0], Image.new("RGB", (9, 9))
    answerer.answer_all([(path, "a"), (picture, "b"), (path, "c"), (picture, "d"), (picture, "e")], batch_size=4)
    hook.remove()
    assert seen == [2, 1]


def reweigh(change):
    """A change of the weights, a mapping from names to tensors."""

    def damage(folder):
        file = folder / "model.safetensors"
        weights = load(file.read_bytes())
        change(weights)
        file.write_bytes(save(weights, metadata={"format": "pt"}))

    return damage


def only_file(folder, name):
    """Take the weights out; gives the path of another file."""
    (folder / "model.safetensors").unlink()
    return folder / name


DAMAGES = {
    "no folder": (lambda f: f.rename(f.with_name("gone")), "no such folder, and the hub gives no model"),
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
    "a weight less": (
        reweigh(lambda weights: weights.pop("head.fc2.weight")),
        "1 weights of the model are missing, first head.fc2.weight",
    ),
    "an adapter left in": (
        reweigh(lambda weights: weights.update({"head.fc2.lora_A": torch.zeros(2)})),
        "1 weights of the model belong to no part of it .* first head.fc2.lora_A",
    ),
    "a weight of another shape": (
        reweigh(lambda weights: weights.update({"head.fc2.bias": torch.zeros(2)})),
        "1 weights of the model do not fit config.json, first head.fc2.bias",
    ),
    "a pickle": (
        lambda f: torch.save(load((f / "model.safetensors").read_bytes()), only_file(f, "pytorch_model.bin")),
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
