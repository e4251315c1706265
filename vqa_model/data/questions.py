"""Questions as columns of numbers over pools of texts: VQA v2 has 658,111 of them with 6.6 million answers.

As objects they are 2 GB and half a minute; as columns 45 MB that are read back in a moment. Most texts come
many times, so a column holds each as its place in a pool. One `Question` is put together when asked for.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np

from vqa_model.data.official_normalisation import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

ANSWERS_PER_QUESTION = 10


class Question(NamedTuple):
    """One question on one picture with its ten human answers."""

    id: int
    image_id: int
    text: str
    answers: tuple[str, ...]
    majority: str
    answer_type: str
    question_type: str


@dataclass(frozen=True, eq=False, kw_only=True)
class Pools:
    """Distinct texts of each kind; `form_of` gives the normal form of every answer as its place in `forms`."""

    texts: list[str]
    answers: list[str]
    answer_types: list[str]
    question_types: list[str]
    forms: list[str]
    form_of: NDArray[np.int32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Questions(Sequence[Question]):
    """Columns of one length, (questions,), `answers` (questions, 10); texts are places in their pool."""

    pools: Pools
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    texts: NDArray[np.int32]
    answers: NDArray[np.int32]
    majorities: NDArray[np.int32]
    answer_types: NDArray[np.int32]
    question_types: NDArray[np.int32]

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "pools"}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Questions: ...
    def __getitem__(self, index: int | slice) -> Question | Questions:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        pools = self.pools
        return Question(
            id=int(self.ids[index]),
            image_id=int(self.image_ids[index]),
            text=self.text(index),
            answers=tuple([pools.answers[code] for code in self.answers[index].tolist()]),
            majority=pools.answers[self.majorities[index]],
            answer_type=pools.answer_types[self.answer_types[index]],
            question_type=pools.question_types[self.question_types[index]],
        )

    def text(self, index: int) -> str:
        """Give the wording of one question."""
        return self.pools.texts[int(self.texts[index])]

    def take(self, chosen: NDArray[Any]) -> Questions:
        """Give some of the questions, by places or by a mask, over the same pools."""
        return replace(self, **{name: column[chosen] for name, column in self.columns.items()})

    def on_images(self, images: frozenset[int] | set[int]) -> NDArray[np.bool_]:
        """Tell which questions are on one of these images, (questions,)."""
        return np.isin(self.image_ids, np.fromiter(images, dtype=np.int64, count=len(images)))

    @cached_property
    def majority_forms(self) -> NDArray[np.int32]:
        """Normal form of each majority answer, as places in the pool of forms, (questions,)."""
        return self.pools.form_of[self.majorities]

    @cached_property
    def answer_forms(self) -> NDArray[np.int32]:
        """Normal form of every answer, as places in the pool of forms, (questions, 10)."""
        return self.pools.form_of[self.answers]


class _Pool(dict[str, int]):
    """Gives each new text the next number."""

    def __missing__(self, text: str) -> int:
        number = self[text] = len(self)
        return number


def build_questions(questions: Iterable[Question]) -> Questions:
    """Put questions into columns, one at a time, and bring every distinct answer into its normal form once."""
    pools = {name: _Pool() for name in ("texts", "answers", "answer_types", "question_types")}
    columns = {name: array("q") for name in ("ids", "image_ids")}
    columns |= {name: array("i") for name in ("majorities", *pools)}
    known = pools["answers"]
    for question in questions:
        columns["ids"].append(question.id)
        columns["image_ids"].append(question.image_id)
        columns["texts"].append(pools["texts"][question.text])
        columns["answers"].extend([known[answer] for answer in question.answers])
        columns["majorities"].append(known[question.majority])
        columns["answer_types"].append(pools["answer_types"][question.answer_type])
        columns["question_types"].append(pools["question_types"][question.question_type])
    arrays = {name: np.array(column) for name, column in columns.items()}
    arrays["answers"] = arrays["answers"].reshape(-1, ANSWERS_PER_QUESTION)
    forms = _Pool()
    form_of = np.array([forms[normalise(answer)] for answer in known], dtype=np.int32)
    found = Pools(**{name: list(pool) for name, pool in pools.items()}, forms=list(forms), form_of=form_of)
    return Questions(pools=found, **arrays)


class QuestionsById(Mapping[int, Question]):
    """Questions of several sets by their ids."""

    def __init__(self, sets: Sequence[Questions]) -> None:
        self._sets = sets
        self._positions = {
            question: (number, index)
            for number, questions in enumerate(sets)
            for index, question in enumerate(questions.ids.tolist())
        }

    def __getitem__(self, question_id: int) -> Question:
        number, index = self._positions[question_id]
        return self._sets[number][index]

    def __contains__(self, question_id: object) -> bool:
        return question_id in self._positions

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)
