"""Every family of towers in the tables trains under the three ways of deciding what trains, self-checked."""

import pytest
import torch
from transformers import AutoConfig

from strategies import compose
from strategies.errors import PlanError
from strategies.structure.roles import linear_layers, roles_of
from vqa_model.modeling.families import TEXT_FAMILIES, VISION_FAMILIES
from vqa_model.modeling.vqa import VQAConfig, VQAModel

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SPECIAL = {f"{name}_token_id": place for place, name in enumerate(("pad", "bos", "eos", "cls", "sep"))}
OWN = {
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "albert": {**SHAPE, "embedding_size": 8},
    "modernbert": {**SHAPE, **SPECIAL},
}
PAIRS = [(vision, "bert") for vision in VISION_FAMILIES] + [("vit", text) for text in TEXT_FAMILIES if text != "bert"]


def build(vision, text):
    torch.manual_seed(0)
    seeing = AutoConfig.for_model(vision, **SHAPE, image_size=32, patch_size=8)
    reading = AutoConfig.for_model(text, **OWN.get(text, SHAPE), vocab_size=60)
    answers = {0: "yes", 1: "no"}
    return VQAModel(
        VQAConfig(vision_config=seeing, text_config=reading, fusion_dim=16, fusion_heads=2, id2label=answers)
    )


def loss(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "label"}
    return torch.nn.functional.cross_entropy(model(**inputs).logits, batch["label"])


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return {
        "pixel_values": torch.randn(2, 3, 32, 32),
        "input_ids": torch.randint(5, 60, (2, 7)),
        "attention_mask": torch.tensor([[1] * 7, [1] * 5 + [0] * 2]),
        "label": torch.tensor([0, 1]),
    }


@pytest.mark.parametrize("plan", ["full", "lora", "freeze"])
@pytest.mark.parametrize(("vision", "text"), PAIRS)
def test_every_family_trains(batch, vision, text, plan):
    model = build(vision, text)
    tuned = compose(plan).apply(model, total_steps=4, lr=1e-3, head_lr=1e-3)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = [float(tuned.step(loss, batch)) for _ in range(4)]
    assert min(losses[1:]) < losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert moved == {name for name, p in model.named_parameters() if p.requires_grad and p.numel()}
    towers = {name.partition(".")[0] for name in moved} & {"vision", "text"}
    assert towers == (set() if plan == "freeze" else {"vision", "text"})


def test_the_roles_of_alberts_layers_are_known():
    text = build("vit", "albert").text
    roles = {name.rpartition(".")[2]: roles_of(name) for name in linear_layers(text, ("",))}
    assert roles == {
        "query": ["query"], "key": ["key"], "value": ["value"], "dense": ["output"], "ffn": ["up"],
        "ffn_output": ["down"], "embedding_hidden_mapping_in": [],
    }  # fmt: skip


def test_albert_has_one_block_that_all_layers_share_so_the_last_cannot_train_alone():
    with pytest.raises(PlanError, match="last_n=1, but 'text' has 0 repeated blocks"):
        compose("freeze(last_n=1)").apply(build("vit", "albert"), total_steps=1)
