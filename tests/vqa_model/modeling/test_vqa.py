import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, BertConfig, ViTConfig

from vqa_model.modeling.fusion.registry import FUSIONS
from vqa_model.modeling.vqa import VQAConfig, VQAModel

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def config(**changes):
    fields = {
        "vision_config": ViTConfig(**TINY, image_size=16, patch_size=8),
        "text_config": BertConfig(**TINY, vocab_size=30),
        "fusion_dim": 16,
        "fusion_heads": 2,
        "id2label": {0: "yes", 1: "no", 2: "cat"},
    }
    return VQAConfig(**{**fields, **changes})


@pytest.fixture
def batch():
    torch.manual_seed(1)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    return {
        "pixel_values": torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8),
        "picture_index": torch.tensor([1, 0, 1]),
        "input_ids": torch.randint(5, 30, (3, 5)) * mask,
        "attention_mask": mask,
    }


@pytest.fixture(params=FUSIONS)
def model(request):
    torch.manual_seed(0)
    return VQAModel(config(fusion=request.param)).eval()


def test_save_and_load_give_the_same_answers(model, batch, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(again, VQAModel)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), VQAConfig)
    assert again.config.id2label == {0: "yes", 1: "no", 2: "cat"}
    assert again.config.vision_config.model_type == "vit"
    assert_close(again(**batch).logits, model(**batch).logits, rtol=0, atol=0)


def test_a_shared_picture_gives_what_its_copies_give(model, batch):
    copies = {**batch, "pixel_values": batch["pixel_values"][batch["picture_index"]], "picture_index": None}
    assert_close(model(**copies).logits, model(**batch).logits)


def test_bytes_and_normalised_floats_agree(model, batch):
    floats = {**batch, "pixel_values": (batch["pixel_values"] / 255 - 0.5) / 0.5}
    assert_close(model(**floats).logits, model(**batch).logits)


def test_padding_does_not_change_answers(model, batch):
    padded = dict(batch)
    padded["input_ids"] = torch.cat([batch["input_ids"], torch.full((3, 4), 7)], 1)
    padded["attention_mask"] = torch.cat([batch["attention_mask"], torch.zeros(3, 4, dtype=torch.long)], 1)
    assert_close(model(**padded).logits, model(**batch).logits)


def test_frozen_towers_carry_no_graph(model, batch):
    model.train()
    model.scopes["vision"].requires_grad_(False)
    tokens = model.encode_pictures(batch["pixel_values"])
    assert tokens.grad_fn is None
    model(**batch).logits.sum().backward()
    trained = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    assert trained == {"text", "fusion", "head"}


def test_every_parameter_belongs_to_one_scope_and_gets_a_gradient(model, batch):
    model(**batch).logits.pow(2).sum().backward()
    assert sum(p.numel() for part in model.scopes.values() for p in part.parameters()) == model.num_parameters()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_builds_on_meta(batch, fusion):
    with torch.device("meta"):
        model = VQAModel(config(fusion=fusion))
    assert all(p.is_meta for p in model.parameters())
    logits = model(**{name: tensor.to("meta") for name, tensor in batch.items()}).logits
    assert logits.shape == (3, 3)


def test_autocast_keeps_answers_close(model, batch):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = model(**batch).logits
    assert_close(half.float(), model(**batch).logits, rtol=0.1, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_compiles_without_graph_breaks(batch, fusion):
    model = VQAModel(config(fusion=fusion)).eval()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        assert_close(compiled(**batch).logits, model(**batch).logits)


def test_unknown_fusion_is_refused():
    with pytest.raises(ValueError, match="'sum' is not known; choose from concat, hadamard, guided_attention"):
        config(fusion="sum")
