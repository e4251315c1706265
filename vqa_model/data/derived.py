"""Everything a VQA task derives from its data folder, computed once and in this order.

Read and check both parts → choose pictures → decode them → drop questions on bad ones →
vocabulary from what is left of training → tensors. A run that finds the caches filled does all of
it in well under a second; only `prepare` (in the parent of a sweep) pays for decoding.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqa_model.data.answers import build_vocabulary
from vqa_model.data.dataset import QuestionSet, encode_questions, tokenise
from vqa_model.data.decode_cache import DecodedPictures, decode_pictures
from vqa_model.data.official_files import DOWNLOAD_FILE, PARTS, Part, read_download, read_part
from vqa_model.data.pictures import ImageSettings
from vqa_model.data.questions import Questions, QuestionsById
from vqa_model.data.splits import choose_images
from vqa_model.picture_world.files import world_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

TUNE_SHARE = 0.1
_LENGTH_STEP, _MAX_LENGTH, _SHARE_THAT_FITS = 2, 32, 0.995


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
    eval_fraction: float
    vocabulary_from: str


@dataclass(frozen=True, kw_only=True)
class VQAData:
    """The three sets of questions, of at most `max_tokens` word pieces; `blank` hides every picture."""

    options: DataOptions
    image: ImageSettings
    tokenizer: Tokenizer
    pad_id: int
    max_tokens: int
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
        self._check_download()
        parts = {name: read_part(self._folder, name) for name in PARTS}
        both = np.intersect1d(parts["train"].questions.ids, parts["val"].questions.ids)
        if both.size:
            raise ValueError(
                f"{self._folder}: {both.size} question ids are in both parts, first {both[0]}; number them apart"
            )
        return parts

    @cached_property
    def _downloaded(self) -> dict[str, Any]:
        return read_download(self._folder)

    def _check_download(self) -> None:
        """Refuse a sample other than the one whose pictures were downloaded."""
        for name, have in self._downloaded.items():
            requested = {**vars(self.options), "eval_fraction": self._eval_fraction}[name]
            sampled = name != "split_seed" or any(self._downloaded[part] < 1 for part in ("fraction", "eval_fraction"))
            if sampled and have not in (requested, 1.0):
                raise ValueError(
                    f"{self._folder}: the pictures of {name} {have:g} were downloaded ({DOWNLOAD_FILE}), not of "
                    f"{requested:g}; take {name} {have:g}, or download more"
                )

    @property
    def _eval_fraction(self) -> float:
        """Share of the val pictures: as asked, else as downloaded, else all."""
        return self.options.eval_fraction or float(self._downloaded.get("eval_fraction", 1.0))

    @cached_property
    def chosen(self) -> frozenset[int]:
        """Ids of the training pictures that `fraction` chose, before the tune set is taken out."""
        return self._parts["train"].choose(self.options.fraction, self.options.split_seed)

    @cached_property
    def _sets(self) -> dict[str, Questions]:
        """Questions of each set before pictures are looked at; evaluation sees no picture of the train part."""
        everything = self._parts["train"].questions
        train = everything.take(everything.on_images(self.chosen))
        tuning = train.on_images(choose_images(train, TUNE_SHARE, self.options.split_seed))
        val = self._parts["val"].questions
        unseen = ~np.isin(val.image_ids, everything.image_ids)
        if self._eval_fraction < 1:
            unseen &= val.on_images(self._parts["val"].choose(self._eval_fraction, self.options.split_seed))
        return self._require_nonempty(
            {"train": train.take(~tuning), "tune": train.take(tuning), "eval": val.take(unseen)}
        )

    @cached_property
    def _kept(self) -> dict[str, Questions]:
        """Questions of each set whose picture could be decoded."""
        return self._require_nonempty({n: found.take(self._rows_of(n, found) >= 0) for n, found in self._sets.items()})

    def _require_nonempty(self, sets: dict[str, Questions]) -> dict[str, Questions]:
        for name, questions in sets.items():
            if not len(questions):
                raise ValueError(
                    f"{self._folder}: no question left for the {name} set; choose a larger fraction or folder"
                )
        return sets

    @cached_property
    def _decoded(self) -> dict[str, DecodedPictures]:
        paths = {
            name: [part.picture_path(i) for i in self._image_ids[name].tolist()] for name, part in self._parts.items()
        }
        skip = self.options.skip_bad_images
        return {name: decode_pictures(files, self.image, skip_bad=skip) for name, files in paths.items()}

    @cached_property
    def _image_ids(self) -> dict[str, NDArray[np.int64]]:
        """Sorted ids of the pictures that the sets of each part ask about."""
        ids_of_sets = {part: [self._sets[name].image_ids for name in _PART if _PART[name] == part] for part in PARTS}
        return {part: np.unique(np.concatenate(ids)) for part, ids in ids_of_sets.items()}

    def _rows_of(self, name: str, questions: Questions) -> NDArray[np.int64]:
        """Row of each question's picture in the decoded array of its part, -1 where it is bad, (questions,)."""
        part, ids = self._parts[_PART[name]], self._image_ids[_PART[name]]
        bad = self._decoded[_PART[name]].bad
        good = np.array([part.picture_path(i).name not in bad for i in ids.tolist()] if bad else [True] * len(ids))
        found = np.searchsorted(ids, questions.image_ids)
        return np.where(good[found], found, -1)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Answers the model can give, from the training set only unless `vocabulary_from` says otherwise."""
        options = self.options
        sets = self._kept if options.vocabulary_from == "train+val" else ["train"]
        counted = [self._kept[name] for name in sets]
        return build_vocabulary(*counted, min_count=options.min_count, max_answers=options.max_answers)

    @cached_property
    def max_length(self) -> int:
        """Word pieces per question: as asked, or what fits nearly all training questions."""
        if self.options.max_length:
            return self.options.max_length
        train = self._kept["train"]
        codes, counts = np.unique(train.texts, return_counts=True)
        texts = [train.pools.texts[code] for code in codes.tolist()]
        lengths = [len(pieces) for pieces in tokenise(texts, self.tokenizer)]
        fitting = int(np.quantile(np.repeat(lengths, counts), _SHARE_THAT_FITS))
        return min(_MAX_LENGTH, self.max_tokens, -(-fitting // _LENGTH_STEP) * _LENGTH_STEP)

    def _question_set(self, name: str) -> QuestionSet:
        questions, part = self._kept[name], _PART[name]
        rows = np.full(len(questions), -1) if self.blank else self._rows_of(name, questions)
        index = {answer: label for label, answer in enumerate(self.vocabulary)}
        columns = encode_questions(
            questions, self.tokenizer, max_length=self.max_length, pad_id=self.pad_id, index=index
        )
        return QuestionSet(questions, self._decoded[part].pixels, rows, columns)

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
    def by_id(self) -> QuestionsById:
        """Every question of the three sets by its id."""
        return QuestionsById(list(self._kept.values()))

    @cached_property
    def by_scored_id(self) -> QuestionsById:
        """Questions that may be scored, the evaluation and the tune set's, by their ids."""
        return QuestionsById([self._kept[name] for name in ("tune", "eval")])

    def picture_path(self, name: str, image_id: int) -> Path:
        """Where a picture of the set "train", "tune" or "eval" lies."""
        return self._parts[_PART[name]].picture_path(image_id)

    def prepare(self) -> None:
        """Do everything that can fail or takes long."""
        assert all(len(questions) for questions in (self.train, self.tune, self.eval))

    @cached_property
    def fingerprint(self) -> str:
        """Hash all questions, answers and pictures; the embedded world by its text, which fixes its pictures."""
        digest = hashlib.sha256()
        for name, questions in self._kept.items():
            digest.update(f"[{json.dumps(name)}, [".encode())
            for index, q in enumerate(questions):
                row = (q.id, q.image_id, q.text, q.answers, q.majority, q.answer_type)
                digest.update(f"{', ' * bool(index)}{json.dumps(row)}".encode())
            digest.update(b"]]")
        if self.options.data:
            for decoded in self._decoded.values():
                digest.update(decoded.content_hash.encode())
        return digest.hexdigest()


_PART = {"train": "train", "tune": "train", "eval": "val"}
