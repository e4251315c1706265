import json
import re

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    DeiTConfig,
    DeiTModel,
    Dinov2Config,
    Dinov2Model,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    ViTConfig,
    ViTModel,
)

from vqa_model.modeling.tokenizer import load_tokenizer
from vqa_model.modeling.towers import SHIPPED, checkpoint_folder, find_tower, preset_config
from vqa_model.picture_world.tokenizer import make_tokenizer
from vqa_model.task import VQATask

SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {**SHAPE, "image_size": 16, "patch_size": 8}
WORDS = {**SHAPE, "vocab_size": 2000, "max_position_embeddings": 64}
VISION = {
    "vit": lambda: ViTModel(ViTConfig(**IMAGE)),
    "deit": lambda: DeiTModel(DeiTConfig(**IMAGE)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**IMAGE)),
}
TEXT = {
    "bert": lambda: BertModel(BertConfig(**WORDS)),
    "roberta": lambda: RobertaModel(RobertaConfig(**WORDS)),
    "electra": lambda: ElectraModel(ElectraConfig(**WORDS, embedding_size=16)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=2000)
    ),
}


def save_text(model, folder):
    model.save_pretrained(folder)
    make_tokenizer(["what is this"]).save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(
    ("vision", "text"), [("vit", "bert"), ("deit", "roberta"), ("dinov2", "electra"), ("vit", "distilbert")]
)
def test_local_folders_of_both_families_train(data, tmp_path, vision, text):
    torch.manual_seed(0)
    VISION[vision]().save_pretrained(tmp_path / "vision")
    save_text(TEXT[text](), tmp_path / "text")
    task = VQATask(data=str(data), vision=str(tmp_path / "vision"), text=str(tmp_path / "text"))
    task.prepare()
    model = task.build_model()
    weights = VISION[vision]().from_pretrained(tmp_path / "vision").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in model.vision.state_dict().items())
    items = task.train_set()
    batch = task.collate([items[place] for place in range(6)])
    assert batch["pixel_values"].shape[1:] == (3, 16, 16)
    task.loss(model, batch).mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_clip_is_refused_in_one_line(tmp_path):
    CLIPConfig().save_pretrained(tmp_path)
    for kind in ("vision", "text"):
        with pytest.raises(ValueError, match=f"family 'clip' cannot be the {kind} tower; it takes one of") as caught:
            VQATask(**{kind: str(tmp_path)}).prepare()
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_text_checkpoint_cannot_see(tmp_path):
    save_text(TEXT["bert"](), tmp_path)
    with pytest.raises(ValueError, match="family 'bert' cannot be the vision tower"):
        checkpoint_folder(str(tmp_path), "vision")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no config.json"), ("{", "not a checkpoint configuration"), ("[]", "not a")]
)
def test_folders_that_are_no_checkpoints_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        checkpoint_folder(str(tmp_path), "vision")


@pytest.mark.parametrize("source", ["./nothing", "/no/such/folder", "a/b/c"])
def test_missing_folders_never_touch_the_network(source, monkeypatch):
    monkeypatch.setattr("vqa_model.modeling.towers._download", None)
    with pytest.raises(ValueError, match="no such folder; name a checkpoint folder or a hub id"):
        checkpoint_folder(source, "vision")


def test_folder_without_weights_or_tokenizer_is_refused(data, tmp_path):
    ViTConfig(**IMAGE).save_pretrained(tmp_path / "vision")
    with pytest.raises(ValueError, match="cannot load the vision tower"):
        VQATask(data=str(data), vision=str(tmp_path / "vision")).build_model()
    BertConfig(**WORDS).save_pretrained(tmp_path / "text")
    with pytest.raises(ValueError, match="no tokenizer"):
        load_tokenizer(find_tower("text", "tiny", str(tmp_path / "text"), random=False))


def test_tokenizer_must_fit_the_tower(tmp_path):
    save_text(BertModel(BertConfig(**{**WORDS, "vocab_size": 50})), tmp_path)
    with pytest.raises(ValueError, match="pieces, the tower only 50"):
        load_tokenizer(find_tower("text", "tiny", str(tmp_path), random=False))


def test_shipped_towers_are_small_and_unimodal():
    files = [file for file in SHIPPED.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 10e6
    assert {file.parent.name for file in files} == {"vision", "text"}
    assert json.loads((SHIPPED / "vision" / "config.json").read_text())["model_type"] == "vit"
    assert json.loads((SHIPPED / "text" / "config.json").read_text())["model_type"] == "bert"


def test_no_word_is_unknown_to_the_shipped_tokenizer(vqa_sample):
    tokenizer = Tokenizer.from_file(str(SHIPPED / "text" / "tokenizer.json"))
    file = vqa_sample / "v2_OpenEnded_mscoco_train2014_questions.json"
    questions = json.loads(file.read_text("utf-8"))["questions"]
    pieces = [encoding.tokens for encoding in tokenizer.encode_batch([row["question"] for row in questions])]
    assert sum("[UNK]" in row for row in pieces) == 0
    assert tokenizer.encode("How many stars are there?").tokens == [
        "[CLS]",
        "how",
        "many",
        "stars",
        "are",
        "there",
        "?",
        "[SEP]",
    ]


@pytest.mark.parametrize(("preset", "vision", "text"), [("base", 85.8e6, 108.9e6), ("large", 303.3e6, 334e6)])
def test_presets_have_the_shapes_of_the_checkpoints_they_are_named_for(preset, vision, text):
    with torch.device("meta"):
        towers = (
            ViTModel(preset_config("vision", preset), add_pooling_layer=False),
            BertModel(preset_config("text", preset), False),
        )
    assert [tower.num_parameters() for tower in towers] == [
        pytest.approx(vision, rel=0.01),
        pytest.approx(text, rel=0.01),
    ]


def test_unknown_preset_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("model 'huge' is not known; choose from 'tiny', 'small', 'base', 'large'")
    ):
        VQATask(model="huge")


def test_shipped_folder_has_no_machine_paths():
    for file in SHIPPED.rglob("*.json"):
        assert not re.search(r'"(/|~|[A-Z]:)[\w/\\]', file.read_text("utf-8"))
