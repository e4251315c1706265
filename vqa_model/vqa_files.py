"""Reads a folder in the official VQA v2 layout and says in one line what is wrong with it.

    v2_OpenEnded_mscoco_{train,val}2014_questions.json
    v2_mscoco_{train,val}2014_annotations.json
    {train,val}2014/COCO_{train,val}2014_<12 digits>.jpg

People meet these files half-downloaded and half-unzipped, so every check names file, place and
what to do. Pictures are checked when they are decoded (`pictures`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWERS_PER_QUESTION = 10
_HINT = "download and unzip it from https://visualqa.org/download.html"
_QUESTION_FIELDS = {"question_id": int, "image_id": int, "question": str}
_ANNOTATION_FIELDS = {"question_id": int, "multiple_choice_answer": str, "answers": list}


@dataclass(frozen=True)
class Question:
    """One question on one picture with its ten human answers."""

    id: int
    image_id: int
    text: str
    answers: tuple[str, ...]
    majority: str
    answer_type: str
    question_type: str


@dataclass(frozen=True)
class Part:
    """One part of the data, "train" or "val"; questions stand in the file's order."""

    folder: Path
    name: str
    questions: tuple[Question, ...]

    def picture_path(self, image_id: int) -> Path:
        """Where the picture of an image id lies."""
        return self.folder / f"{self.name}2014" / f"COCO_{self.name}2014_{image_id:012d}.jpg"


def _records(file: Path, key: str, fields: dict[str, type]) -> list[dict[str, Any]]:
    """List under `key` of a JSON file, every record checked for the fields it must have."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{file}: file is missing; {_HINT}, or leave --data out for the embedded data") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{file}: JSON breaks off or is damaged at {place} ({error.msg}); {_HINT}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as text ({error}); {_HINT}") from error
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list) or not records:
        raise ValueError(f"{file}: not a VQA v2 file: no list {key!r} in it; {_HINT}")
    for number, record in enumerate(records):
        for field, kind in fields.items():
            value = record.get(field) if isinstance(record, dict) else None
            fits = isinstance(value, kind)
            if not fits:
                raise ValueError(f"{file}: not VQA v2: {key}[{number}] has no {kind.__name__} {field!r}; {_HINT}")
    return records


def _by_question(file: Path, records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, record in enumerate(records):
        if found.setdefault(record["question_id"], record) is not record:
            raise ValueError(f"{file}: record {number} repeats question {record['question_id']}; keep one of them")
    return found


def _answers(file: Path, record: dict[str, Any]) -> tuple[str, ...]:
    place = f"{file}: annotation of question {record['question_id']}"
    answers = record["answers"]
    if len(answers) != ANSWERS_PER_QUESTION:
        raise ValueError(f"{place} has {len(answers)} answers, not {ANSWERS_PER_QUESTION}; complete or remove it")
    try:
        texts = tuple([answer["answer"] for answer in answers])
    except (TypeError, KeyError):
        texts = ()
    if set(map(type, texts)) != {str}:
        raise ValueError(f"{place} has an answer without text; each needs a string 'answer'")
    return texts


def read_part(folder: Path, name: str) -> Part:
    """Read and check the questions and annotations of part "train" or "val"."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such data folder; name one in the official VQA v2 layout, or leave --data out")
    question_file = folder / f"v2_OpenEnded_mscoco_{name}2014_questions.json"
    annotation_file = folder / f"v2_mscoco_{name}2014_annotations.json"
    asked = _by_question(question_file, _records(question_file, "questions", _QUESTION_FIELDS))
    annotated = _by_question(annotation_file, _records(annotation_file, "annotations", _ANNOTATION_FIELDS))
    for ids, others, what, other_file in (
        (asked, annotated, "annotation", annotation_file),
        (annotated, asked, "question", question_file),
    ):
        missing = [question_id for question_id in ids if question_id not in others]
        if missing:
            raise ValueError(
                f"{other_file}: {len(missing)} {what}s are missing, the first for question {missing[0]}; "
                "take both files from the same release"
            )
    for question_id, record in asked.items():
        pictured = annotated[question_id].get("image_id", record["image_id"])
        if pictured != record["image_id"]:
            raise ValueError(
                f"{annotation_file}: question {question_id} is on image {pictured}, but {question_file.name} "
                f"says {record['image_id']}; take both files from the same release"
            )
    questions = tuple(
        Question(
            id=question_id,
            image_id=record["image_id"],
            text=record["question"],
            answers=_answers(annotation_file, annotated[question_id]),
            majority=annotated[question_id]["multiple_choice_answer"],
            answer_type=str(annotated[question_id].get("answer_type", "other")),
            question_type=str(annotated[question_id].get("question_type", "none of the above")),
        )
        for question_id, record in asked.items()
    )
    return Part(folder, name, questions)
