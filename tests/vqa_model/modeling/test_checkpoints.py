"""Folders as the hub has them load with their heads left out, their own tokenizers and preprocessors, and train."""

from functools import reduce

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from vqa_model.modeling.tokenizer import load_tokenizer
from vqa_model.modeling.towers import find_tower
from vqa_model.task import VQATask

PAIRS = [
    ("vit", "bert"),
    ("deit", "roberta"),
    ("dinov2", "albert"),
    ("dinov2_with_registers", "minilm"),
    ("vit", "distilbert"),
]


@pytest.fixture
def save(hub, tmp_path):
    """Save a family's folder; gives its path and the model in it, without the heads."""
    return lambda family: (str(tmp_path / family), hub.save(family, tmp_path / family))


@pytest.fixture
def data(tmp_path, write, hub):
    """A tiny data set that asks `hub.TEXTS`."""
    for name, first, count in (("train", 1, 30), ("val", 101, 4)):
        rows = [
            (10 * i + k, i, hub.TEXTS[k], [answer] * 10)
            for i in range(first, first + count)
            for k, answer in enumerate(("cat", "dog", "2", "yes"))
        ]
        write(tmp_path / "data", name, rows)
    return tmp_path / "data"


def batch_of(task):
    items = task.train_set()
    return task.collate([items[place] for place in range(8)])


@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_a_hub_folder_gives_its_models_outputs_and_trains(data, save, vision, text, caplog):
    (vision_folder, seen), (text_folder, read) = save(vision), save(text)
    task = VQATask(data=str(data), vision=vision_folder, text=text_folder)
    task.prepare()
    model, batch = task.build_model().eval(), batch_of(task)
    assert not caplog.records  # no table of the heads that were left out
    assert batch["pixel_values"].shape[1:] == (3, 16, 16)
    pixels = (batch["pixel_values"] - model.pixel_mean) / model.pixel_std
    mask = batch["attention_mask"]
    with torch.no_grad():
        words = model.text(input_ids=batch["input_ids"], attention_mask=mask[:, None, None, :].bool())
        expected = read(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        torch.testing.assert_close(words.last_hidden_state[mask.bool()], expected[mask.bool()], rtol=0, atol=1e-5)
        expected = seen(pixel_values=pixels).last_hidden_state
        torch.testing.assert_close(model.encode_pictures(batch["pixel_values"]), expected, rtol=0, atol=1e-6)
        before = task._logits(model, batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = task.loss(model, batch).mean()
        loss.backward()
        assert [n for n, p in model.named_parameters() if p.grad is None] == []
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert not torch.equal(task._logits(model, batch), before)


@pytest.mark.parametrize("text", [text for _, text in PAIRS])
def test_questions_become_the_ids_of_the_folders_own_tokenizer(hub, save, text):
    folder, _ = save(text)
    tower = find_tower("text", "tiny", folder, random=False)
    found, theirs = load_tokenizer(tower), AutoTokenizer.from_pretrained(folder)
    for asked in (*hub.TEXTS, "How many Zebras?"):
        ids = found.encode(asked).ids
        assert ids == theirs(asked, padding=False)["input_ids"]
        assert (ids[0], ids[-1]) == (theirs.cls_token_id, theirs.sep_token_id)
    assert tower.config.pad_token_id == theirs.pad_token_id


def test_a_tokenizer_that_pads_does_not_lengthen_questions(data, save):
    padding, plain = (VQATask(data=str(data), text=save(name)[0]) for name in ("minilm", "bert"))
    assert batch_of(padding)["input_ids"].shape == batch_of(plain)["input_ids"].shape
    assert padding.build_model().config.text_config.hidden_size == 384


def same_weights(loaded, model):
    return all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_berts_first_names_load(save, tmp_path):
    folder, model = save("bert")
    file = tmp_path / "bert" / "model.safetensors"
    first = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
    state = {reduce(lambda name, pair: name.replace(*pair), first, name): w for name, w in load_file(file).items()}
    assert {"bert.embeddings.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.beta"} <= set(state)
    save_file(state, file, metadata={"format": "pt"})
    assert same_weights(find_tower("text", "tiny", folder, random=False).load(), model)


def old_names(name):
    """Name of a ViT weight in folders of transformers 4."""
    for new, old in (
        (".q_proj.", ".attention.query."),
        (".k_proj.", ".attention.key."),
        (".v_proj.", ".attention.value."),
        (".o_proj.", ".output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ):
        name = name.replace(new, old)
    return name.replace("layers.", "encoder.layer.") if name.startswith(("vit.layers", "layers")) else name


@pytest.mark.parametrize("names", ["old", "new"])
@pytest.mark.parametrize("part", ["whole", "base"])
def test_old_and_new_vit_names_give_the_same_outputs(hub, save, tmp_path, names, part):
    folder, base = save("vit")
    model, _ = hub.build("vit")
    state = (model if part == "whole" else model.base_model).state_dict()
    state = {old_names(name) if names == "old" else name: value for name, value in state.items()}
    query = "encoder.layer.0.attention.attention.query.weight" if names == "old" else "layers.0.attention.q_proj.weight"
    assert ("vit." if part == "whole" else "") + query in state
    save_file(state, tmp_path / "vit" / "model.safetensors", metadata={"format": "pt"})
    loaded = find_tower("vision", "tiny", folder, random=False).load().eval()
    pixels = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(loaded(pixels).last_hidden_state, base(pixels).last_hidden_state)


def test_a_folder_with_torchs_own_file_loads(save, tmp_path):
    folder, model = save("bert")
    torch.save(load_file(tmp_path / "bert" / "model.safetensors"), tmp_path / "bert" / "pytorch_model.bin")
    (tmp_path / "bert" / "model.safetensors").unlink()
    assert same_weights(find_tower("text", "tiny", folder, random=False).load(), model)


PACKAGES = is_sentencepiece_available() and is_protobuf_available()
UNREADABLE = (
    "" if PACKAGES else ": it takes two packages .pip install sentencepiece protobuf., a tokenizer.json takes none"
)
WRONG = {
    "sentencepiece alone": (
        "albert",
        "spiece.model",
        b"junk",
        f"spiece.model: cannot be read as a tokenizer{UNREADABLE}",
    ),
    "merges missing": ("roberta", "merges.txt", None, "vocab.json: cannot be read as a tokenizer"),
    "config missing": ("albert", "config.json", None, "no config.json"),
    "tokenizer missing": ("albert", "tokenizer.json", None, "no tokenizer.json"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_or_missing_files_are_one_line(data, save, tmp_path, case):
    family, name, content, message = WRONG[case]
    folder, _ = save(family)
    (tmp_path / family / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / family / "tokenizer.json").unlink()
        (tmp_path / family / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        VQATask(data=str(data), text=folder).prepare()
    assert "\n" not in str(caught.value)
    assert str(tmp_path / family) in str(caught.value)
