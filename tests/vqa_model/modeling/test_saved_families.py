"""A model on a tower of any family answers from its saved folder as it did in training."""

import shutil

import pytest
import torch
from transformers import AutoConfig

from vqa_model.answering.answerer import Answerer
from vqa_model.modeling.families import TEXT_FAMILIES, VISION_FAMILIES
from vqa_model.modeling.vqa import VQAConfig, VQAModel
from vqa_model.task import VQATask

pytestmark = pytest.mark.slow
KINDS = {
    "vit": "vision", "deit": "vision", "dinov2": "vision", "dinov2_with_registers": "vision",
    "bert": "text", "roberta": "text", "distilbert": "text", "albert": "text", "minilm": "text",
}  # fmt: skip
SHAPE = {
    "hidden_size": 16, "dim": 16, "num_hidden_layers": 1, "n_layers": 1, "num_attention_heads": 2, "n_heads": 2,
    "intermediate_size": 32, "hidden_dim": 32, "image_size": 16, "patch_size": 8, "vocab_size": 99,
    "embedding_size": 16, "pad_token_id": 1, "max_position_embeddings": 40,
}  # fmt: skip


@pytest.mark.parametrize("family", KINDS)
def test_a_folder_from_the_hub_trained_saved_and_asked(hub, small_world, tmp_path, family):
    hub.save(family, tmp_path / "tower")
    task = VQATask(data=str(small_world), min_count=1, **{KINDS[family]: str(tmp_path / "tower")})
    model = task.build_model().eval()
    items = task.eval_set()
    batch = task.collate([items[place] for place in range(40)])
    with torch.no_grad():
        wanted = task.predict(model, batch)
    task.save_model(model, tmp_path / "saved", {})
    shutil.rmtree(tmp_path / "tower")
    asked = [(task.picture_file(question.image_id), question.text) for question in items.questions[:40]]
    found = Answerer.load(tmp_path / "saved").answer_all(asked, top=1)
    assert [best.probability for (best,) in found] == pytest.approx([row["probability"] for row in wanted], abs=1e-5)


def sub_config(family):
    known = AutoConfig.for_model(family).to_dict()
    return AutoConfig.for_model(family, **{name: value for name, value in SHAPE.items() if name in known})


@pytest.mark.parametrize("family", [*VISION_FAMILIES, *TEXT_FAMILIES])
def test_every_family_is_saved_whole(tmp_path, family):
    part = "vision_config" if family in VISION_FAMILIES else "text_config"
    parts = {"vision_config": sub_config("vit"), "text_config": sub_config("bert"), part: sub_config(family)}
    model = VQAModel(VQAConfig(**parts, fusion_dim=16, fusion_heads=2))
    model.save_pretrained(tmp_path)
    again, report = VQAModel.from_pretrained(tmp_path, output_loading_info=True, use_safetensors=True)
    assert not any(report.values())
    weights = again.state_dict()
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
