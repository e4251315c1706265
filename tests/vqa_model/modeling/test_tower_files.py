"""What the files of a checkpoint folder do to a task: damaged, incomplete, moved or changed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from vqa_model.modeling.tokenizer import load_tokenizer
from vqa_model.modeling.towers import find_tower
from vqa_model.picture_world.tokenizer import make_tokenizer
from vqa_model.task import VQATask

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
VISION = ViTConfig(**SHAPE, image_size=16, patch_size=8)
TEXT = BertConfig(**SHAPE, vocab_size=2000, max_position_embeddings=64)


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def point(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n")


def save_both(folder):
    ViTModel(VISION).save_pretrained(folder / "vision")
    (folder / "vision" / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6], "resample": 3}')
    BertModel(TEXT).save_pretrained(folder / "text")
    make_tokenizer(["what is this"]).save(str(folder / "text" / "tokenizer.json"))
    return {"vision": str(folder / "vision"), "text": str(folder / "text")}


def test_a_weight_missing_from_a_checkpoint_is_named(data, tmp_path):
    ViTModel(VISION).save_pretrained(tmp_path)
    edit(tmp_path / "config.json", num_hidden_layers=2)
    with pytest.raises(ValueError, match=rf"{tmp_path}: 16 weights of the vision tower missing, first .*\.1\."):
        VQATask(data=str(data), vision=str(tmp_path)).build_model()


CORRUPT = {
    "cut weights": ("vision/model.safetensors", cut, "cannot load the vision tower"),
    "cut text weights": ("text/model.safetensors", cut, "cannot load the text tower"),
    "pointer": ("vision/model.safetensors", point, "cannot load the vision tower"),
    "other shape": (
        "vision/model.safetensors",
        lambda file: edit(file.with_name("config.json"), intermediate_size=40),
        r"3 weights do not fit config.json, first .*: \(32,\), not \(40,\)",
    ),
    "cut tokenizer": ("text/tokenizer.json", cut, "cannot be read as a tokenizer"),
    "cut preprocessor": ("vision/preprocessor_config.json", cut, "not a preprocessor configuration"),
    "no such filter": (
        "vision/preprocessor_config.json",
        lambda file: edit(file, resample=99),
        "not a preprocessor configuration: 99",
    ),
    "bad value": ("vision/config.json", lambda file: edit(file, hidden_size="x"), "not a checkpoint configuration"),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_corrupt_files_are_one_clear_line_naming_the_file(data, tmp_path, case):
    name, damage, message = CORRUPT[case]
    task = VQATask(data=str(data), **save_both(tmp_path))
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: .*{message}|{name}: {message}") as caught:
        task.build_model()
    assert "\n" not in str(caught.value)


def test_random_towers_keep_a_named_checkpoints_inputs_and_run_in_fp32(data, tmp_path):
    named = save_both(tmp_path)
    for folder in named.values():
        edit(Path(folder) / "config.json", dtype="float16")
    task = VQATask(data=str(data), towers="random", **named)
    model = task.build_model()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.image_mean == [0.4, 0.5, 0.6]
    stored = ViTModel.from_pretrained(named["vision"], add_pooling_layer=False).state_dict()
    assert not torch.equal(model.vision.embeddings.cls_token, stored["embeddings.cls_token"])
    loaded = load_tokenizer(find_tower("text", "tiny", named["text"], random=True))
    assert loaded.get_vocab() == make_tokenizer(["what is this"]).get_vocab()


def test_model_fingerprint_covers_how_inputs_are_made(data, tmp_path):
    named = save_both(tmp_path / "one")
    task = VQATask(data=str(data), **named)
    before = task.model_fingerprint()
    task.prepare()  # sets the tokenizer's truncation
    assert task.model_fingerprint() == before
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    copy = {kind: str(tmp_path / "two" / kind) for kind in named}
    assert VQATask(data=str(data), **copy).model_fingerprint() == before
    edit(tmp_path / "one" / "vision" / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3])
    assert VQATask(data=str(data), **named).model_fingerprint() != before
    edit(tmp_path / "two" / "text" / "tokenizer.json", normalizer=None)
    assert VQATask(data=str(data), **copy).model_fingerprint() != before
