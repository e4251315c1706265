"""The shared model: a ViT-family tower, a BERT-family tower, a fusion, a head over answers.

A plain Hugging Face pair of configuration and model, so that `save_pretrained`, `from_pretrained`,
`push_to_hub` and the Auto classes work. Pictures come as bytes (or already normalised floats),
each once per batch, with an index from question to picture: questions on one picture share its
encoding, and the bus to the GPU carries a quarter of the data.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers import initialization as init
from transformers.configuration_utils import PreTrainedConfig
from transformers.utils.generic import ModelOutput

from vqa_model.modeling.families import SLIDING_FAMILIES, pooler_option
from vqa_model.modeling.fusion.layers import AnswerHead
from vqa_model.modeling.fusion.registry import build_fusion, check_fusion
from vqa_model.quiet import quiet_imports

with quiet_imports():
    from transformers.modeling_utils import PreTrainedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class VQAConfig(PreTrainedConfig):
    """Configuration of both towers, the fusion and the answers (`id2label`)."""

    model_type = "tunematrix-vqa"
    sub_configs: ClassVar[dict[str, Any]] = {"vision_config": AutoConfig, "text_config": AutoConfig}

    def __init__(
        self,
        vision_config: PreTrainedConfig | dict[str, Any] | None = None,
        text_config: PreTrainedConfig | dict[str, Any] | None = None,
        *,
        fusion: str = "cross_attention",
        fusion_dim: int = 128,
        fusion_layers: int = 2,
        fusion_heads: int = 4,
        image_mean: Sequence[float] = (0.5, 0.5, 0.5),
        image_std: Sequence[float] = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ) -> None:
        self.vision_config = _sub_config(vision_config, "vit")
        self.text_config = _sub_config(text_config, "bert")
        self.fusion = check_fusion(fusion)
        self.fusion_dim = fusion_dim
        self.fusion_layers = fusion_layers
        self.fusion_heads = fusion_heads
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)
        super().__init__(**kwargs)


def _sub_config(config: PreTrainedConfig | dict[str, Any] | None, default: str) -> PreTrainedConfig:
    if isinstance(config, PreTrainedConfig):
        return config
    fields = dict(config or {})
    return AutoConfig.for_model(fields.pop("model_type", default), **fields)


@dataclass
class VQAOutput(ModelOutput):
    """Logits over the answer vocabulary: (questions, answers)."""

    logits: Tensor | None = None


class VQAModel(PreTrainedModel):
    """Answer a question about a picture by scoring a fixed vocabulary of answers."""

    config_class = VQAConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: VQAConfig, vision: nn.Module | None = None, text: nn.Module | None = None) -> None:
        super().__init__(config)
        self.vision = _without_mask_token(vision or _tower(config.vision_config))
        self.text = text or _tower(config.text_config)
        dims = (config.text_config.hidden_size, config.vision_config.hidden_size, config.fusion_dim)
        self.fusion = build_fusion(config.fusion, dims, heads=config.fusion_heads, layers=config.fusion_layers)
        self.head = AnswerHead(config.fusion_dim, config.num_labels)
        self.register_buffer("pixel_mean", 255 * torch.tensor(config.image_mean).view(1, -1, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(config.image_std).view(1, -1, 1, 1))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Give fusion and head Glorot's scale: at BERT's 0.02, attention over a narrow model starts blind."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)

    def _upload_modified_files(self, working_dir: str, *args: Any, **kwargs: Any) -> Any:
        """Push the card of the folder that this was loaded from; transformers writes an empty one in its place."""
        card = Path(self.name_or_path) / "README.md"
        if self.name_or_path and card.is_file():
            shutil.copyfile(card, Path(working_dir) / "README.md")
        return super()._upload_modified_files(working_dir, *args, **kwargs)

    @property
    def scopes(self) -> dict[str, nn.Module]:
        """Parts that a fine-tuning strategy may name."""
        return {"vision": self.vision, "text": self.text, "fusion": self.fusion, "head": self.head}

    def encode_pictures(self, pixel_values: Tensor) -> Tensor:
        """Turn pictures (pictures, 3, height, width), uint8 or normalised, into tokens (pictures, tokens, dim)."""
        if pixel_values.dtype == torch.uint8:
            pixel_values = (pixel_values - self.pixel_mean) / self.pixel_std
        tokens: Tensor = self.vision(pixel_values=pixel_values).last_hidden_state
        return tokens

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor,
        picture_index: Tensor | None = None,
    ) -> VQAOutput:
        """Score answers; `picture_index` (questions,) names each question's row of `pixel_values`."""
        image = self.encode_pictures(pixel_values)
        if picture_index is not None:
            image = image.index_select(0, picture_index)
        # SDPA takes the mask ready-made; left to the tower, it is inspected first, which waits for the GPU.
        config: Any = self.text.config  # the tower's own: a loaded tower does not share the model's
        sdpa = config._attn_implementation == "sdpa"  # noqa: SLF001 -- transformers' own name
        sdpa = sdpa and config.model_type not in SLIDING_FAMILIES
        mask = attention_mask[:, None, None, :].bool() if sdpa else attention_mask
        text = self.text(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return VQAOutput(logits=self.head(self.fusion(text, attention_mask, image)))


def _without_mask_token(tower: nn.Module) -> nn.Module:
    """Take out the token for hidden patches (DINO's have one): nothing here reads it, so it cannot train."""
    for name, _ in list(tower.named_parameters()):
        owner, _, last = name.rpartition(".")
        if last == "mask_token":
            tower.get_submodule(owner).register_parameter(last, None)
    return tower


def _tower(config: PreTrainedConfig) -> nn.Module:
    """Build a tower at random, in torch's own default dtype: a half-precision config is not obeyed."""
    option = pooler_option(config.model_type)
    tower: nn.Module = AutoModel.from_config(config, dtype=torch.get_default_dtype(), **option)
    return tower


AutoConfig.register(VQAConfig.model_type, VQAConfig)
AutoModel.register(VQAConfig, VQAModel)
