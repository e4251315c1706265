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

from vqa_model.data.answers import targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from tokenizers import Tokenizer
    from torch import Tensor

    from vqa_model.data.questions import Questions

Item = dict[str, Any]
BLANK = "blank"
MAX_UNIQUE_SHARE = 0.875  # of a batch's questions about pictures that no other asks about: sharing wins too little
_GREY = 127
_TOKENIZER_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class QuestionSet(Dataset[Item]):
    """Questions in file order; `rows[i]` is the picture row of question i, -1 a blank picture."""

    questions: Questions
    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Item:
        questions = self.questions
        keys = {
            "vision": int(questions.image_ids[index]) if self.rows[index] >= 0 else BLANK,
            "text": questions.text(index),
        }
        return {
            "id": int(questions.ids[index]), "keys": keys, "length": self.lengths[index], "place": index, "set": self,
        }  # fmt: skip

    @cached_property
    def lengths(self) -> list[int]:
        """Word pieces of each question, without padding."""
        counts: list[int] = self.columns["attention_mask"].sum(1).tolist()
        return counts


def encode_questions(
    questions: Questions, tokenizer: Tokenizer, *, max_length: int, pad_id: int, index: Mapping[str, int]
) -> dict[str, Tensor]:
    """Tokenise questions and look up their targets: one tensor per batch entry, questions first."""
    codes, of_text = np.unique(questions.texts, return_inverse=True)
    texts = [questions.pools.texts[code] for code in codes.tolist()]
    ids = np.full((len(texts), max_length), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, pieces in enumerate(tokenise(texts, tokenizer, max_length)):
        ids[row, : len(pieces)] = pieces
        mask[row, : len(pieces)] = 1
    labels, known, scores = targets(questions, index)
    columns = {
        "question_id": questions.ids,
        "input_ids": ids[of_text],
        "attention_mask": mask[of_text],
        "label": labels,
        "answer_index": known,
        "answer_score": scores,
    }
    return {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in columns.items()}


def tokenise(texts: Sequence[str], tokenizer: Tokenizer, max_length: int | None = None) -> Iterator[list[int]]:
    """Word pieces of each text, cut to `max_length`; a block at a time, as a tokenizer's output for a text is large."""
    tokenizer.no_padding()
    if max_length is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_length)
    for start in range(0, len(texts), _TOKENIZER_BLOCK):
        yield from (found.ids for found in tokenizer.encode_batch_fast(texts[start : start + _TOKENIZER_BLOCK]))


def collate_questions(items: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Gather a batch: per-question tensors, pictures (uint8), and `picture_index` from question to picture.

    Each picture stands once, in the order in which the questions first ask about them. Where hardly any is shared,
    each question has its own instead: batches of one shape compile once, and cuDNN plans its attention once (a second
    for every other number of pictures on an H100: https://github.com/modelscope/FunASR/issues/3704).
    """
    source: QuestionSet = items[0]["set"]
    indices = np.fromiter((item["place"] for item in items), dtype=np.int64, count=len(items))
    picture_rows = source.rows[indices]
    rows = np.array(list(dict.fromkeys(picture_rows.tolist())), dtype=np.int64)
    if len(rows) > MAX_UNIQUE_SHARE * len(picture_rows):
        rows, picture_index = picture_rows, np.arange(len(picture_rows))
    else:
        order = np.argsort(rows)
        picture_index = order[np.searchsorted(rows, picture_rows, sorter=order)]
    blank = rows[0] < 0
    pixels = np.full((1, *source.pixels.shape[1:]), _GREY, dtype=np.uint8) if blank else source.pixels[rows]
    chosen = torch.from_numpy(indices)
    batch = {name: column[chosen] for name, column in source.columns.items()}
    return batch | {"pixel_values": torch.from_numpy(pixels), "picture_index": torch.from_numpy(picture_index)}
