"""Code that comes with a model or a tower never runs, asked or not: `auto_map` in each file that may have one."""

import io
import json
import shutil

import pytest
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from vqa_model.answering.answerer import Answerer
from vqa_model.picture_world.tokenizer import make_tokenizer
from vqa_model.task import VQATask

CODE = """
from pathlib import Path
Path({marker!r}).touch()
class Foreign:
    pass
"""
CLASSES = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor", "AutoTokenizer")
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
OWN_CLASS = {"config.json": "model_type", "tokenizer_config.json": "tokenizer_class"}


def refusal(load):
    """What is said against loading; empty where it loads."""
    try:
        load()
    except ValueError as error:
        return str(error)
    return ""


@pytest.fixture
def poisoned(tmp_path, monkeypatch):
    """Let a file of a folder name code in it as its classes; who is asked whether to run it says yes."""
    marker = tmp_path / "it-ran"
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))

    def poison(folder, name, *, unknown):
        file = folder / name
        facts = json.loads(file.read_text()) if file.exists() else {}
        own = {OWN_CLASS[name]: "Foreign"} if unknown and name in OWN_CLASS else {}
        both = {"AutoTokenizer": ["foreign.Foreign", "foreign.Foreign"]}
        file.write_text(json.dumps({**facts, **own, "auto_map": dict.fromkeys(CLASSES, "foreign.Foreign") | both}))
        (folder / "foreign.py").write_text(CODE.format(marker=str(marker)))

    yield poison
    assert not marker.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    task, folder = VQATask(), tmp_path_factory.mktemp("models") / "mine"
    task.save_model(task.build_model(), folder, {})
    return folder


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "tokenizer_config.json"])
def test_of_a_model(poisoned, model, tmp_path, name, unknown):
    folder = shutil.copytree(model, tmp_path / "copy")
    poisoned(folder, name, unknown=unknown)
    said = refusal(lambda: Answerer.load(folder))
    assert said.startswith(str(folder)) == bool(said)
    assert ("code of its own" in said) == (unknown and name == "tokenizer_config.json")


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("name", ["vision/config.json", "vision/preprocessor_config.json", "text/config.json",
                                  "text/tokenizer_config.json", "vocabulary/tokenizer_config.json"])  # fmt: skip
def test_of_a_tower(poisoned, tmp_path, name, unknown):
    kind, _, name = name.partition("/")
    ViTModel(ViTConfig(**SHAPE, image_size=16, patch_size=8)).save_pretrained(tmp_path / "vision")
    BertModel(BertConfig(**SHAPE, vocab_size=2000)).save_pretrained(tmp_path / "text")
    if kind == "vocabulary":  # without a tokenizer.json transformers' own class reads it
        kind = "text"
        (tmp_path / "text" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred")
    else:
        make_tokenizer(["what is this"]).save(str(tmp_path / "text" / "tokenizer.json"))
    poisoned(tmp_path / kind, name, unknown=unknown)
    said = refusal(lambda: VQATask(vision=str(tmp_path / "vision"), text=str(tmp_path / "text")).build_model())
    assert said.startswith(str(tmp_path / kind)) == bool(said)
