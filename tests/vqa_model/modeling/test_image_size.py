"""Pictures of another size than a tower's weights were trained on, and how a preprocessor's size becomes pixels."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from vqa_model.data.pictures import ImageSettings, fit_picture
from vqa_model.modeling.families import ANY_SIZE_FAMILIES, VISION_FAMILIES
from vqa_model.modeling.towers import find_tower, image_settings
from vqa_model.task import VQATask

SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STORED = {**SHAPE, "image_size": 32, "patch_size": 8}
# What google/vit-base-patch16-224, facebook/deit-base-distilled-patch16-224 and facebook/dinov2-base say
SQUARE = {"height": 224, "width": 224}
VIT = {"image_processor_type": "ViTImageProcessor", "size": SQUARE, "resample": 2}
DEIT = {"feature_extractor_type": "DeiTFeatureExtractor", "size": 256, "do_center_crop": True, "crop_size": 224}
DINOV2 = {
    "image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "do_center_crop": True,
    "crop_size": SQUARE, "resample": 3,
}  # fmt: skip


@pytest.fixture
def save(tmp_path):
    """Save a tower with random weights, its positions too; gives its folder and the tower."""

    def save(family, **preprocessor):
        torch.manual_seed(0)
        tower = AutoModel.from_config(AutoConfig.for_model(family, **STORED)).eval()
        for name, parameter in tower.named_parameters():
            if "position" in name:
                torch.nn.init.normal_(parameter)
        tower.save_pretrained(tmp_path / family)
        if preprocessor:
            (tmp_path / family / "preprocessor_config.json").write_text(json.dumps(preprocessor))
        return str(tmp_path / family), tower

    return save


def own_outputs(tower, pixels):
    """What the family makes of pictures of another size when it interpolates in every step."""
    with torch.no_grad():
        try:
            return tower(pixels, interpolate_pos_encoding=tower.config.model_type not in ANY_SIZE_FAMILIES)
        except TypeError:
            return tower(pixels)


@pytest.mark.parametrize("size", [16, 32, 48])
@pytest.mark.parametrize("family", VISION_FAMILIES)
def test_outputs_are_those_of_the_familys_own_interpolation(save, family, size):
    folder, stored = save(family)
    before = torch.get_rng_state()
    tower = find_tower("vision", "tiny", folder, random=False, image_size=size)
    resized = tower.load().eval()
    assert torch.equal(torch.get_rng_state(), before)
    assert resized.config.image_size == (32 if family in ANY_SIZE_FAMILIES else size)
    pixels = torch.randn(2, 3, size, size)
    with torch.no_grad():
        outputs = resized(pixel_values=pixels)
    expected = own_outputs(stored, pixels).last_hidden_state
    torch.testing.assert_close(outputs.last_hidden_state, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_a_preprocessor_of_another_size_needs_no_option(data, save, family):
    folder, _ = save(family, size={"height": 48, "width": 48})
    task = VQATask(data=str(data), vision=folder, objective="soft_bce")
    task.prepare()
    model, items = task.build_model(), task.train_set()
    batch = task.collate([items[place] for place in range(4)])
    assert batch["pixel_values"].shape[1:] == (3, 48, 48)
    positions = model.vision.embeddings.position_embeddings
    assert positions.shape == (1, 1 + 36, 16)
    task.loss(model, batch).mean().backward()
    assert positions.grad.abs().sum(-1).count_nonzero() == 37


def test_a_saved_model_says_the_size_it_takes(data, save, tmp_path):
    folder, _ = save("deit")
    task = VQATask(data=str(data), vision=folder, image_size=48)
    task.prepare()
    model, items = task.build_model().eval(), task.train_set()
    model.save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved").eval()
    assert again.config.vision_config.image_size == 48
    batch = task.collate([items[place] for place in range(4)])
    with torch.no_grad():
        assert torch.equal(task._logits(again, batch), task._logits(model, batch))


def flops(task, batch):
    """Forward pass of the model's shape alone."""
    with torch.device("meta"):
        model = task.build_model().eval()
    with FlopCounterMode(display=False) as counter:
        model(**{name: tensor.to("meta") for name, tensor in batch.items()})
    return counter.get_total_flops()


@pytest.mark.slow
@pytest.mark.parametrize("towers", ["pretrained", "random"])
@pytest.mark.parametrize("vision", ["", "dinov2"])
def test_shape_cost_and_compilation_are_as_of_any_tower(data, save, vision, towers):
    task = VQATask(data=str(data), vision=save(vision)[0] if vision else "", image_size=96, towers=towers)
    model, items = task.build_model().eval(), task.train_set()
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in task.build_model().named_parameters()}
    assert {name: p.shape for name, p in model.named_parameters()} == shapes
    batch = task.collate([items[place] for place in range(4)])
    batch = {name: batch[name] for name in ("pixel_values", "input_ids", "attention_mask", "picture_index")}
    small = replace(task, image_size=48)
    assert flops(task, batch) > 2 * flops(small, batch | {"pixel_values": batch["pixel_values"][:, :, :48, :48]})
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        shadow = model(**batch).logits
    with torch.no_grad():
        logits = model(**batch).logits
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(**batch).logits, logits)
    assert shadow.shape == logits.shape


def test_a_preset_without_weights_takes_the_size(data):
    task = VQATask(data=str(data), model="small", image_size=48)
    task.prepare()
    assert task.build_model().vision.embeddings.position_embeddings.shape == (1, 1 + 16, 256)


def test_sizes_that_do_not_fit_are_one_line_with_the_nearest(data, save):
    folder, _ = save("vit")
    for size, nearest in ((44, "40 and 48"), (5, "8")):
        with pytest.raises(
            ValueError, match=rf"image_size {size} is no multiple of .* size 8; the nearest: {nearest}$"
        ):
            VQATask(data=str(data), vision=folder, image_size=size).prepare()
    with pytest.raises(ValueError, match=r"^image_size 100 is no multiple"):
        VQATask(data=str(data), model="small", image_size=100).prepare()
    with pytest.raises(ValueError, match="image_size -1 is below 0"):
        VQATask(image_size=-1)
    with pytest.raises(ValueError, match="image_size '64' is of type str; it takes int"):
        VQATask(image_size="64")


@pytest.mark.parametrize("name", ["image_size", "patch_size"])
def test_towers_of_oblong_pictures_are_refused(save, tmp_path, name):
    folder, _ = save("vit")
    file = tmp_path / "vit" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: [32, 16]}))
    with pytest.raises(ValueError, match=rf"{folder}: {name} \[32, 16\] is not square"):
        find_tower("vision", "tiny", folder, random=False, image_size=64)


@pytest.mark.parametrize("family", ["vit", "beit"])
def test_the_models_fingerprint_tells_the_size_so_the_runs_id_need_not(data, save, family):
    folder, _ = save(family, **VIT | {"size": 32})
    task, larger, same = (VQATask(data=str(data), vision=folder, image_size=size) for size in (0, 48, 32))
    assert "image_size" in VQATask.path_fields
    assert same.model_fingerprint() == task.model_fingerprint() != larger.model_fingerprint()
    assert larger.data_fingerprint() == task.data_fingerprint()
    assert larger.model_name == f"tiny+{family}@48"


def test_a_processor_file_counts_only_where_it_holds_an_image_processor(save, tmp_path):
    folder, _ = save("vit", **VIT | {"size": 24})
    tower = find_tower("vision", "tiny", folder, random=False)
    file = tmp_path / "vit" / "processor_config.json"
    for content, size in (({"processor_class": "P"}, 24), ({"image_processor": VIT | {"size": 48}}, 48)):
        file.write_text(json.dumps(content))
        assert image_settings(tower).size == size
    file.write_text("[]")
    with pytest.raises(ValueError, match=r"processor_config.json: not a preprocessor configuration: "):
        image_settings(tower)


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 1000), st.booleans())
def test_a_cut_keeps_its_ratio_at_another_size(edge, crop, size, keep_ratio):
    fields = {"size": {"shortest_edge": edge} if keep_ratio else edge, "crop_size": crop, "do_center_crop": True}
    settings = ImageSettings.from_preprocessor(fields, 7, size)
    assert (settings.size, settings.keep_ratio) == (size, keep_ratio)
    assert abs((settings.shortest_edge or 0) - edge * size / crop) <= 0.5
    assert ImageSettings.from_preprocessor(fields, 7) == ImageSettings.from_preprocessor(fields, 7, crop)


@pytest.mark.parametrize("size", [0, 384])
@pytest.mark.parametrize(("fields", "edge"), [(VIT, None), (DEIT, 256), (DINOV2, 256)], ids=["vit", "deit", "dinov2"])
def test_pixels_are_those_of_the_checkpoints_own_processors(vqa_sample, fields, edge, size):
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    kind = {None: ViTImageProcessorPil}.get(edge) or (
        BitImageProcessorPil if fields is DINOV2 else DeiTImageProcessorPil
    )
    settings = ImageSettings.from_preprocessor({"resample": 3, **fields}, 99, size)
    changes = {}
    if size:
        scaled = 439 if edge else size
        names = ("shortest_edge",) if fields is DINOV2 else ("height", "width")
        changes = {"size": dict.fromkeys(names, scaled), "crop_size": {"height": size, "width": size}}
    theirs = kind(do_rescale=False, do_normalize=False, **{"resample": 3, **fields} | changes)
    for path in sorted((vqa_sample / "train2014").iterdir())[::20]:
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
        (expected,) = theirs(rgb)["pixel_values"]
        assert abs(fit_picture(rgb, settings).astype(int) - expected).max() <= 1
