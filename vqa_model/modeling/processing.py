"""What turns pictures and questions into the model's inputs, saved in the model's folder.

Both halves are those of training: pictures become bytes through `fit_picture`, questions go through the text
tower's own tokenizer, cut at the length that was trained. transformers' image processors would give normalised
floats, four times the bytes, by way of torchvision, so pictures have a small processor of their own. Importing this
module makes `AutoProcessor` and `AutoImageProcessor` know both.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vqa_model.data.pictures import ImageSettings, fit_picture
from vqa_model.modeling.model_card import model_card
from vqa_model.modeling.vqa import VQAConfig, VQAModel
from vqa_model.quiet import quiet_imports

with quiet_imports():
    from transformers import AutoImageProcessor, AutoProcessor, PreTrainedTokenizerFast
    from transformers.image_processing_base import BatchFeature
    from transformers.image_processing_utils import BaseImageProcessor
    from transformers.processing_utils import ProcessorMixin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from PIL import Image
    from tokenizers import Tokenizer


class VQAImageProcessor(BaseImageProcessor):
    """Pictures to bytes, (pictures, 3, size, size); the model normalises them itself."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, settings: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = asdict(ImageSettings(**(settings or {"size": 224})))

    def preprocess(
        self, images: Image.Image | Sequence[Image.Image], return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Resize (and cut) one picture or several; `return_tensors` "pt" or "np"."""
        settings = ImageSettings(**self.settings)
        listed: Any = images if isinstance(images, (list, tuple)) else [images]
        pixels = np.stack([fit_picture(picture.convert("RGB"), settings) for picture in listed])
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


class VQAProcessor(ProcessorMixin):
    """Pictures and questions to the model's inputs; questions on one picture may share it by `picture_index`."""

    def __init__(self, image_processor: VQAImageProcessor, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__(image_processor, tokenizer)

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image],
        text: str | Sequence[str],
        picture_index: Sequence[int] | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Give pixel_values, input_ids and attention_mask, and picture_index where it was given.

        picture_index: place of each question's picture in `images`; without, there is a picture for each question.
        """
        questions = [text] if isinstance(text, str) else list(text)
        found = dict(self.tokenizer(questions, padding=True, truncation=True))
        found = {name: found[name] for name in ("input_ids", "attention_mask")} | dict(self.image_processor(images))
        given = len(questions) if picture_index is None else len(picture_index)
        if given != len(questions) or (picture_index is None and len(found["pixel_values"]) != given):
            raise ValueError(
                f"{len(questions)} questions on {len(found['pixel_values'])} pictures; give a picture for each "
                "question, or picture_index to say which"
            )
        if picture_index is not None:
            found["picture_index"] = list(picture_index)
        return BatchFeature(found, tensor_type=return_tensors)


def make_processor(image: ImageSettings, tokenizer: Tokenizer, *, pad_id: int, max_length: int) -> VQAProcessor:
    """Put together what a model was trained with."""
    from tokenizers import Tokenizer as Copy

    own = Copy.from_str(tokenizer.to_str())
    own.no_padding()
    own.no_truncation()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token=own.id_to_token(pad_id), model_max_length=max_length, padding_side="right"
    )
    return VQAProcessor(VQAImageProcessor(asdict(image)), wrapped)


def save_model(model: VQAModel, processor: VQAProcessor, facts: Mapping[str, Any], folder: Path) -> None:
    """Write a folder that `from_pretrained` and `Answerer.load` read: weights (safetensors), processor and card."""
    with_facts = model_card(model, facts, name=folder.name)
    model.save_pretrained(folder)
    config = deepcopy(model.config)
    for tower in (config.vision_config, config.text_config):
        tower.name_or_path = ""  # where it lay is nobody's business who gets the model
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "README.md").write_text(with_facts, encoding="utf-8")


AutoImageProcessor.register(VQAConfig, image_processor_classes={"pil": VQAImageProcessor})
AutoProcessor.register(VQAConfig, VQAProcessor)
