"""A model's configuration from its size, its towers, its fusion as written, and its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqa_model.modeling.fusion.registry import parse_fusion
from vqa_model.modeling.towers import PRESETS
from vqa_model.modeling.vqa import VQAConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqa_model.modeling.towers import Tower

SHALLOW = "tiny"  # the size whose attention fusions have one layer unless more are asked for


def make_config(size: str, towers: Mapping[str, Tower], fusion: str, answers: Sequence[str], **more: Any) -> VQAConfig:
    """Put together what `VQAModel` is built from; the fusion has the width and the heads of the size's towers."""
    width, _, heads, *_ = PRESETS[size]
    call = parse_fusion(fusion)
    return VQAConfig(
        vision_config=towers["vision"].config,
        text_config=towers["text"].config,
        fusion=call.name,
        fusion_dim=width,
        fusion_layers=call.layers or (1 if size == SHALLOW else 2),
        fusion_heads=heads,
        id2label=dict(enumerate(answers)),
        label2id={answer: index for index, answer in enumerate(answers)},
        **more,
    )
