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
MOSTLY_OTHERS = 0.875  # of a batch's questions about pictures that no other asks about: sharing wins too little
_GREY = 127
_TEXTS_AT_A_TIME = 8192


@dataclass(frozen=True, eq=False)
class QuestionSet(Dataset[Item]):
    """Questions in file order; `rows[i]` is the picture row of question i, -1 a blank picture."""

    questions: Questions
    pixels: NDArray[np.uint8]
    rows: NDArray[np.int64]
    columns: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, place: int) -> Item:
        asked = self.questions
        keys = {"vision": int(asked.image_ids[place]) if self.rows[place] >= 0 else BLANK, "text": asked.text(place)}
        return {
            "id": int(asked.ids[place]), "keys": keys, "length": self.lengths[place], "place": place, "set": self,
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


def tokenise(texts: Sequence[str], tokenizer: Tokenizer, longest: int | None = None) -> Iterator[list[int]]:
    """Word pieces of each text, cut to `longest`; a block at a time, as what a tokenizer makes of a text is large."""
    tokenizer.no_padding()
    if longest is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(longest)
    for start in range(0, len(texts), _TEXTS_AT_A_TIME):
        yield from (found.ids for found in tokenizer.encode_batch_fast(texts[start : start + _TEXTS_AT_A_TIME]))


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
