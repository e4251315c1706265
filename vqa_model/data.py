"""Everything a VQA task derives from its data folder, computed once and in this order.

Read and check both parts → choose pictures → decode them → drop questions on bad ones →
vocabulary from what is left of training → tensors. A run that finds the caches filled does all of
it in well under a second; only `prepare` (in the parent of a sweep) pays for decoding.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqa_model.answers import build_vocabulary
from vqa_model.dataset import QuestionSet, encode_questions
from vqa_model.decoding import DecodedPictures, decode_pictures
from vqa_model.pictures import ImageSettings
from vqa_model.splits import choose_images
from vqa_model.vqa_files import Part, Question, read_part
from vqa_model.world_files import world_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TUNE_SHARE = 0.1
_LENGTH_STEP, _LONGEST, _SHARE_THAT_FITS = 2, 32, 0.995


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The task's options that decide which questions and answers there are."""

    data: str
    fraction: float
    split_seed: int
    min_count: int
    max_answers: int
    max_length: int
    skip_bad_images: bool


@dataclass(frozen=True, kw_only=True)
class VQAData:
    """The three sets of questions, of at most `longest` word pieces; `blank` hides every picture."""

    options: DataOptions
    image: ImageSettings
    tokenizer: Tokenizer
    pad_id: int
    longest: int
    blank: bool

    @cached_property
    def _folder(self) -> Path:
        return Path(self.options.data).expanduser() if self.options.data else world_folder()

    @property
    def name(self) -> str:
        """Name of the data for tables."""
        return self._folder.resolve().name if self.options.data else "picture-world"

    @cached_property
    def _parts(self) -> dict[str, Part]:
        parts = {name: read_part(self._folder, name) for name in ("train", "val")}
        asked = {question.id for question in parts["train"].questions}
        both = [question.id for question in parts["val"].questions if question.id in asked]
        if both:
            raise ValueError(
                f"{self._folder}: {len(both)} question ids are in both parts, first {both[0]}; number them apart"
            )
        return parts

    @cached_property
    def chosen(self) -> frozenset[int]:
        """Ids of the training pictures that `fraction` chose, before the tune set is taken out."""
        questions = self._parts["train"].questions
        return choose_images(questions, self.options.fraction, self.options.split_seed)

    @cached_property
    def _kept(self) -> dict[str, tuple[Question, ...]]:
        """Questions of each set whose picture could be decoded; evaluation sees no picture of the train part."""
        train = [question for question in self._parts["train"].questions if question.image_id in self.chosen]
        tuning = choose_images(train, TUNE_SHARE, self.options.split_seed)
        seen = {question.image_id for question in self._parts["train"].questions}
        evaluated = [question for question in self._parts["val"].questions if question.image_id not in seen]
        sets = {
            "train": [question for question in train if question.image_id not in tuning],
            "tune": [question for question in train if question.image_id in tuning],
            "eval": evaluated,
        }
        kept = {name: tuple(q for q in sets[name] if q.image_id in self._rows[_PART[name]]) for name in sets}
        for name, questions in kept.items():
            if not questions:
                raise ValueError(
                    f"{self._folder}: no question left for the {name} set; choose a larger fraction or folder"
                )
        return kept

    @cached_property
    def _decoded(self) -> dict[str, DecodedPictures]:
        skip = self.options.skip_bad_images
        return {
            name: decode_pictures([part.picture_path(i) for i in self._image_ids[name]], self.image, skip_bad=skip)
            for name, part in self._parts.items()
        }

    @cached_property
    def _image_ids(self) -> dict[str, list[int]]:
        return {"train": sorted(self.chosen), "val": sorted({q.image_id for q in self._parts["val"].questions})}

    @cached_property
    def _rows(self) -> dict[str, dict[int, int]]:
        """Row of each good picture in the decoded array of its part."""
        rows = {}
        for name, part in self._parts.items():
            bad = self._decoded[name].bad
            places = enumerate(self._image_ids[name])
            rows[name] = {i: row for row, i in places if part.picture_path(i).name not in bad}
        return rows

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Answers the model can give, from the training set only."""
        options = self.options
        return build_vocabulary(self._kept["train"], min_count=options.min_count, max_answers=options.max_answers)

    @cached_property
    def max_length(self) -> int:
        """Word pieces per question: as asked, or what fits nearly all training questions."""
        if self.options.max_length:
            return self.options.max_length
        self.tokenizer.no_truncation()
        counts = Counter(question.text for question in self._kept["train"])
        lengths = [len(encoding.ids) for encoding in self.tokenizer.encode_batch(list(counts))]
        fitting = int(np.quantile(np.repeat(lengths, list(counts.values())), _SHARE_THAT_FITS))
        return min(_LONGEST, self.longest, -(-fitting // _LENGTH_STEP) * _LENGTH_STEP)

    def _question_set(self, name: str) -> QuestionSet:
        questions, part = self._kept[name], _PART[name]
        rows = [-1 if self.blank else self._rows[part][question.image_id] for question in questions]
        index = {answer: place for place, answer in enumerate(self.vocabulary)}
        columns = encode_questions(
            questions, self.tokenizer, max_length=self.max_length, pad_id=self.pad_id, index=index
        )
        return QuestionSet(questions, self._decoded[part].pixels, np.array(rows), columns)

    @cached_property
    def train(self) -> QuestionSet:
        """Questions to learn from."""
        return self._question_set("train")

    @cached_property
    def tune(self) -> QuestionSet:
        """Questions that may choose rates and defaults."""
        return self._question_set("tune")

    @cached_property
    def eval(self) -> QuestionSet:
        """Questions of the val part."""
        return self._question_set("eval")

    @cached_property
    def by_id(self) -> dict[int, Question]:
        """Every question of the three sets by its id."""
        return {question.id: question for questions in self._kept.values() for question in questions}

    @cached_property
    def by_scored_id(self) -> dict[int, Question]:
        """Questions that may be scored, the evaluation and the tune set's, by their ids."""
        return {question.id: question for name in ("tune", "eval") for question in self._kept[name]}

    def picture_path(self, question: Question) -> Path:
        """Where an evaluation question's picture lies."""
        name = "val" if question.image_id in self._rows["val"] else "train"
        return self._parts[name].picture_path(question.image_id)

    def prepare(self) -> None:
        """Do everything that can fail or takes long."""
        assert all(len(questions) for questions in (self.train, self.tune, self.eval))

    @cached_property
    def fingerprint(self) -> str:
        """Hash all questions, answers and pictures; the embedded world by its text, which fixes its pictures."""
        digest = hashlib.sha256()
        for name, questions in self._kept.items():
            rows = [(q.id, q.image_id, q.text, q.answers, q.majority, q.answer_type) for q in questions]
            digest.update(json.dumps([name, rows]).encode())
        if self.options.data:
            for decoded in self._decoded.values():
                digest.update(decoded.content_hash.encode())
        return digest.hexdigest()


_PART = {"train": "train", "tune": "train", "eval": "val"}
