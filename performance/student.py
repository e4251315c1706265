"""The way course projects feed and score: every question decodes its picture, every step goes to scikit-learn.

Questions are padded to the full length, pictures are decoded, resized and normalised in `__getitem__` by
transformers' ViTImageProcessor, once for each question in each epoch, and the vision tower runs once per
question. Tokenising is left out, in the students' favour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from torch import Tensor
from torch.utils.data import Dataset
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from vqa_model.data.dataset import QuestionSet


@dataclass(frozen=True, eq=False)
class DecodingSet(Dataset[dict[str, Any]]):
    """The questions of `known`, whose pictures lie in `pictures`, decoded to `size` × `size` at every access."""

    known: QuestionSet
    pictures: Path
    size: int

    @cached_property
    def processor(self) -> ViTImageProcessorPil:
        """Transformers' own, without torchvision."""
        return ViTImageProcessorPil(size={"height": self.size, "width": self.size})

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, place: int) -> dict[str, Any]:
        item, number = self.known[place], self.known.questions[place].image_id
        path = self.pictures / f"COCO_{self.pictures.name}_{number:012d}.jpg"
        with Image.open(path) as picture:
            pixels = self.processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        columns = {name: column[place] for name, column in self.known.columns.items()}
        return item | {"columns": columns | {"pixel_values": pixels}}


def collate_decoded(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Stack everything, a picture for each question."""
    batch = {name: torch.stack([item["columns"][name] for item in items]) for name in items[0]["columns"]}
    return batch | {"picture_index": torch.arange(len(items))}


def score_step(logits: Tensor, batch: Mapping[str, Tensor], loss: Tensor) -> tuple[float, ...]:
    """Loss, accuracy, precision, recall and F1 of one batch, as students print them."""
    targets, answers = batch["label"].cpu().numpy(), logits.argmax(-1).cpu().numpy()
    precision, recall, f1, _ = precision_recall_fscore_support(targets, answers, average="macro", zero_division=0)
    return loss.item(), accuracy_score(targets, answers), precision, recall, f1
