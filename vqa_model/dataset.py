"""Questions as tensors made once, pictures as rows of the memory map: items and batches are gathers.

A training step on a small model takes a few milliseconds, so a data loader that tokenises or
decodes would be what one measures. `QuestionSet` holds everything as a few tensors; an item is a
row number with its keys, and `collate` indexes. Pictures shared in a batch are sent once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from vqa_model.answers import targets
from vqa_model.vqa_files import ANSWERS_PER_QUESTION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from vqa_model.vqa_files import Question

Item = dict[str, Any]
BLANK = "blank"
MOSTLY_OTHERS = 0.875  # of a batch's questions about pictures that no other asks about: sharing wins too little
_GREY = 127


@dataclass(frozen=True, eq=False)
class QuestionSet(Dataset[Item]):
    """Questions in file order; `rows[i]` is the picture row of question i, -1 a blank picture."""

    questions: tuple[Question, ...]
    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, place: int) -> Item:
        question = self.questions[place]
        keys = {"vision": question.image_id if self.rows[place] >= 0 else BLANK, "text": question.text}
        return {"id": question.id, "keys": keys, "length": self.lengths[place], "place": place, "set": self}

    @cached_property
    def lengths(self) -> list[int]:
        """Word pieces of each question, without padding."""
        counts: list[int] = self.columns["attention_mask"].sum(1).tolist()
        return counts


def encode_questions(
    questions: Sequence[Question], tokenizer: Tokenizer, *, max_length: int, pad_id: int, index: Mapping[str, int]
) -> dict[str, Tensor]:
    """Tokenise questions and look up their targets: one tensor per batch entry, questions first."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    texts = list(dict.fromkeys(question.text for question in questions))
    ids = {text: encoding.ids for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True)}
    pieces = [ids[question.text] for question in questions]
    goals = [targets(question, index) for question in questions]
    more = [ANSWERS_PER_QUESTION - len(known) for _, known, _ in goals]
    return {
        "question_id": torch.tensor([question.id for question in questions]),
        "input_ids": torch.tensor([row + [pad_id] * (max_length - len(row)) for row in pieces]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (max_length - len(row)) for row in pieces]),
        "label": torch.tensor([label for label, _, _ in goals]),
        "answer_index": torch.tensor([known + [0] * gap for (_, known, _), gap in zip(goals, more, strict=True)]),
        "answer_score": torch.tensor([scores + [0.0] * gap for (*_, scores), gap in zip(goals, more, strict=True)]),
    }


def collate_questions(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Gather a batch: per-question tensors, pictures (uint8), and `picture_index` from question to picture.

    Each picture stands once, in the order in which the questions first ask about them. Where hardly any is shared,
    each question has its own instead: batches of one shape compile once, and cuDNN plans its attention once (a second
    for every other number of pictures on an H100: https://github.com/modelscope/FunASR/issues/3704).
    """
    source: QuestionSet = items[0]["set"]
    places = np.fromiter((item["place"] for item in items), dtype=np.int64, count=len(items))
    asked = source.rows[places]
    rows = np.array(list(dict.fromkeys(asked.tolist())), dtype=np.int64)
    if len(rows) > MOSTLY_OTHERS * len(asked):
        rows, picture_index = asked, np.arange(len(asked))
    else:
        order = np.argsort(rows)
        picture_index = order[np.searchsorted(rows, asked, sorter=order)]
    blank = rows[0] < 0
    pixels = np.full((1, *source.pixels.shape[1:]), _GREY, dtype=np.uint8) if blank else source.pixels[rows]
    chosen = torch.from_numpy(places)
    batch = {name: column[chosen] for name, column in source.columns.items()}
    return batch | {"pixel_values": torch.from_numpy(pixels), "picture_index": torch.from_numpy(picture_index)}
