"""Reads a folder in the official VQA v2 layout and says in one line what is wrong with it.

    v2_OpenEnded_mscoco_{train,val}2014_questions.json
    v2_mscoco_{train,val}2014_annotations.json
    v2_mscoco_{train,val}2014_complementary_pairs.json      (may be missing)
    {train,val}2014/COCO_{train,val}2014_<12 digits>.jpg

People meet these files half-downloaded and half-unzipped, so every check names file, place and
what to do. Pictures are checked when they are decoded (`pictures`). What was read and found sound is
kept as an index in the cache, under the files' names, sizes and times.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqa_model.data.json_records import stream_records
from vqa_model.data.question_index import load_or_index
from vqa_model.data.questions import ANSWERS_PER_QUESTION, Question, Questions, build_questions
from vqa_model.data.splits import choose_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PARTS = ("train", "val")
DOWNLOAD_FILE = "download.json"  # says which pictures were downloaded
_HINT = "`python -m vqa_model.download --out DIR` fetches it"
_QUESTION_FIELDS = {"question_id": int, "image_id": int, "question": str}
_ANNOTATION_FIELDS = {"question_id": int, "image_id": int, "multiple_choice_answer": str, "answers": list}


@dataclass(frozen=True)
class Part:
    """One part of the data, "train" or "val"; questions stand in the file's order."""

    folder: Path
    name: str
    questions: Questions

    def picture_path(self, image_id: int) -> Path:
        """Where the picture of an image id lies."""
        return self.folder / f"{self.name}2014" / f"COCO_{self.name}2014_{image_id:012d}.jpg"

    def choose(self, fraction: float, seed: int) -> frozenset[int]:
        """Image ids of `fraction` of the pictures, balanced pairs together as far as they can be."""
        pairs = read_pairs(self.folder, self.name) if fraction < 1 else None
        return choose_images(self.questions, fraction, seed, pairs)


def question_file(folder: Path, name: str) -> Path:
    """Where the questions of a part lie."""
    return folder / f"v2_OpenEnded_mscoco_{name}2014_questions.json"


def annotation_file(folder: Path, name: str) -> Path:
    """Where the answers of a part lie."""
    return folder / f"v2_mscoco_{name}2014_annotations.json"


def read_part(folder: Path, name: str) -> Part:
    """Read and check the questions and annotations of part "train" or "val", or read them back from the index."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such data folder; name one in the official VQA v2 layout, or leave --data out")
    return Part(folder, name, read_questions(question_file(folder, name), annotation_file(folder, name)))


def read_questions(questions_file: Path, annotations_file: Path) -> Questions:
    """Read and check a file of questions and one of annotations, or read them back from the index."""
    for file in (questions_file, annotations_file):
        if not file.is_file():
            raise ValueError(f"{file}: file is missing; {_HINT}, or leave --data out for the embedded data")
    return load_or_index((questions_file, annotations_file), lambda: _join(questions_file, annotations_file))


def read_pairs(folder: Path, name: str) -> NDArray[np.int64] | None:
    """Read the ids of questions that stand together, (pairs, 2); None where the folder has no such file."""
    file = folder / f"v2_mscoco_{name}2014_complementary_pairs.json"
    if not file.is_file():
        return None
    try:
        pairs = np.array(json.loads(file.read_text(encoding="utf-8")), dtype=np.int64)
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{file}: not a list of pairs of question ids ({error}); {_HINT}, or remove it") from error
    if pairs.size and pairs.shape[1:] != (2,):
        raise ValueError(f"{file}: not a list of pairs of question ids; {_HINT}, or remove it")
    return pairs.reshape(-1, 2)


def read_download(folder: Path) -> dict[str, Any]:
    """Read which pictures `vqa_model.download` fetched; empty where it did not make the folder."""
    file = folder / DOWNLOAD_FILE
    if not file.is_file():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        numbers = {"fraction": float, "eval_fraction": float, "split_seed": int}
        return {name: kind(facts[name]) for name, kind in numbers.items()}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file}: not what the downloader wrote ({error!r}); run the download again") from error


def _records(file: Path, key: str, fields: dict[str, type]) -> Iterator[dict[str, Any]]:
    """Yield the records under `key` of a JSON file, each checked for the fields it must have, and for its id."""
    seen: set[int] = set()
    try:
        for number, record in enumerate(stream_records(file, key)):
            for field, kind in fields.items():
                value = record.get(field) if isinstance(record, dict) else None
                fits = isinstance(value, kind)
                if not fits:
                    raise ValueError(f"{file}: not VQA v2: {key}[{number}] has no {kind.__name__} {field!r}; {_HINT}")
            if record["question_id"] in seen:
                raise ValueError(f"{file}: record {number} repeats question {record['question_id']}; keep one of them")
            seen.add(record["question_id"])
            yield record
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{file}: JSON breaks off or is damaged at {where} ({error.msg}); {_HINT}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as text ({error}); {_HINT}") from error
    if not seen:
        raise ValueError(f"{file}: not a VQA v2 file: no list {key!r} in it; {_HINT}")


def _answers(file: Path, record: dict[str, Any]) -> tuple[str, ...]:
    where = f"{file}: annotation of question {record['question_id']}"
    answers = record["answers"]
    if len(answers) != ANSWERS_PER_QUESTION:
        raise ValueError(f"{where} has {len(answers)} answers, not {ANSWERS_PER_QUESTION}; complete or remove it")
    try:
        texts = tuple([answer["answer"] for answer in answers])
    except (TypeError, KeyError):
        texts = ()
    if set(map(type, texts)) != {str}:
        raise ValueError(f"{where} has an answer without text; each needs a string 'answer'")
    return texts


def _join(questions_file: Path, annotations_file: Path) -> Questions:
    """Join both files by question id; the questions stand in the order of theirs."""
    records = _records(questions_file, "questions", _QUESTION_FIELDS)
    by_id = {record["question_id"]: (record["image_id"], record["question"]) for record in records}
    unasked: list[int] = []

    def joined() -> Iterator[Question]:
        for record in _records(annotations_file, "annotations", _ANNOTATION_FIELDS):
            number, pictured = record["question_id"], record["image_id"]
            if number not in by_id:
                unasked.append(number)
                continue
            image_id, text = by_id[number]
            if pictured != image_id:
                raise ValueError(
                    f"{annotations_file}: question {number} is on image {pictured}, but {questions_file.name} "
                    f"says {image_id}; take both files from the same release"
                )
            kind = str(record.get("answer_type", "other")), str(record.get("question_type", "none of the above"))
            answers = _answers(annotations_file, record)
            yield Question(number, image_id, text, answers, record["multiple_choice_answer"], *kind)

    try:
        questions = build_questions(joined())
    except OverflowError as error:
        raise ValueError(f"{annotations_file}: an id is no number of 64 bits; {_HINT}") from error
    found = set(questions.ids.tolist())
    unanswered = [number for number in by_id if number not in found]
    for missing, what, file in ((unanswered, "annotation", annotations_file), (unasked, "question", questions_file)):
        if missing:
            raise ValueError(
                f"{file}: {len(missing)} {what}s are missing, the first for question {missing[0]}; "
                "take both files from the same release"
            )
    row_of = {number: row for row, number in enumerate(questions.ids.tolist())}
    return questions.take(np.array([row_of[number] for number in by_id]))
