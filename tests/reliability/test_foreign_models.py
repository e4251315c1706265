"""Models of others: code that comes with one never runs, asked or not, and files that were changed are named."""

import hashlib
import io
import json
import shutil

import pytest
from safetensors.torch import load_file
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


def manifest_of(folder):
    files = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in folder.iterdir()}
    (folder / "manifest.json").write_text(json.dumps({"files": files | {"../../secret.json": {"sha256": "0"}}}))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json"])
def test_a_changed_file_of_a_model_is_named(model, tmp_path, name):
    folder = shutil.copytree(model, tmp_path / "copy")
    manifest_of(folder)
    (folder / "README.md").unlink()
    assert not refusal(lambda: Answerer.load(folder)), "what nobody reads may be left out, as on a hub"
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    assert refusal(lambda: Answerer.load(folder)).startswith(f"{folder / name}: ")


@pytest.mark.parametrize("manifest", ["{", "[]", "{}", '{"files": 3}'])
def test_a_manifest_that_is_none_is_named(model, tmp_path, manifest):
    folder = shutil.copytree(model, tmp_path / "copy")
    (folder / "manifest.json").write_text(manifest)
    assert refusal(lambda: Answerer.load(folder)).startswith(f"{folder / 'manifest.json'}: ")


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_does_not_lead_out_of_its_folder(model, tmp_path, place):
    folder = shutil.copytree(model, tmp_path / "copy")
    shutil.move(folder / "model.safetensors", tmp_path / "secret.safetensors")
    weights = dict.fromkeys(load_file(tmp_path / "secret.safetensors"), place)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    assert refusal(lambda: Answerer.load(folder)).startswith(f"{folder / 'model.safetensors.index.json'}: names ")
