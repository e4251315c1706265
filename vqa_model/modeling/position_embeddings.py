"""A vision tower for pictures of another size than its weights were trained on.

Its position embeddings are interpolated once, when it is loaded, by the family's own function for it. So the
outputs are those of `interpolate_pos_encoding=True`, while a step costs nothing, has no bicubic backward pass
(which is not deterministic on a GPU), and a saved model says the size it takes.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from vqa_model.modeling.families import ANY_SIZE_FAMILIES, pooler_option

if TYPE_CHECKING:
    from transformers.configuration_utils import PreTrainedConfig
    from transformers.modeling_utils import PreTrainedModel


def picture_size(config: PreTrainedConfig) -> int:
    """Edge of the square pictures that a configuration is for."""
    height, width = _pair(config.image_size)
    if height != width:
        raise ValueError(f"image_size {config.image_size} is not square; a vision tower here takes square pictures")
    return height


def patch_size(config: PreTrainedConfig) -> int:
    """Edge of the square patches that a vision tower cuts pictures into."""
    height, width = _pair(config.patch_size)
    if height != width:
        raise ValueError(f"patch_size {config.patch_size} is not square; a vision tower here takes square patches")
    return height


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def with_image_size(config: PreTrainedConfig, size: int) -> PreTrainedConfig:
    """Copy of a configuration for pictures of another size; a family that takes any size keeps its own."""
    if size == picture_size(config):
        return config
    patch = patch_size(config)
    if size % patch:
        nearest = [edge for edge in (size // patch * patch, (size // patch + 1) * patch) if edge]
        raise ValueError(
            f"image_size {size} is no multiple of the vision tower's patch size {patch}; "
            f"the nearest: {' and '.join(map(str, nearest))}"
        )
    resized_config = deepcopy(config)
    if config.model_type not in ANY_SIZE_FAMILIES:
        resized_config.image_size = size
    return resized_config


def interpolate_positions(tower: PreTrainedModel, config: PreTrainedConfig) -> PreTrainedModel:
    """Build the same tower for the picture size of `config`; draws nothing from the random generator."""
    import torch

    size = picture_size(config)
    old = tower.embeddings.position_embeddings
    patches = [(picture_size(c) // patch_size(c)) ** 2 for c in (tower.config, config)]
    num_tokens = old.shape[1] - patches[0] + patches[1]
    with torch.no_grad():
        table = tower.embeddings.interpolate_pos_encoding(old.new_empty(1, num_tokens, old.shape[2]), size, size)
    weights = tower.state_dict() | {"embeddings.position_embeddings": table.contiguous()}
    resized, found = type(tower).from_pretrained(
        None,
        config=config,
        state_dict=weights,
        dtype=old.dtype,
        output_loading_info=True,
        **pooler_option(config.model_type),
    )
    assert not any(found.values()), found
    other: PreTrainedModel = resized
    return other
