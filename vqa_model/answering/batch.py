"""The work of `vqa_model.predict`: reading what is asked, answering it in blocks, writing or showing the answers."""

from __future__ import annotations

import csv
import json
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from vqa_model.answering.answerer import Answerer
from vqa_model.data.pictures import read_picture

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from vqa_model.answering.answerer import Answer

CONTRADICTIONS = (("questions", "question"), ("questions", "image"), ("image", "images"), ("out", "json"))
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SHOWN = 60  # characters of a question in a message
BLOCK_SIZE = 512  # questions between two lines of progress
Row = dict[str, Any]  # image (path), question, and question_id where the file has one


def predict(options: argparse.Namespace) -> None:
    """Answer what was asked. ValueError for what cannot be, as much of it as can be known before the work."""
    check(options)
    rows = read_rows(options)
    if options.out and is_official(options.out):
        check_ids(options.out, rows)
    answerer = Answerer.load(options.model, options.device)
    rows = drop_unreadable(rows, skip=options.skip_bad_images)
    warn_truncated(answerer, rows)
    found = answer_rows(answerer, options, rows)
    if options.out:
        write(options.out, rows, found)
        print(f"{len(rows)} answers: {options.out}")
    else:
        show(rows, found, as_json=options.json, several=not options.image)


def check(options: argparse.Namespace) -> None:
    """ValueError for options that contradict each other, and for files and folders that are not what they should be."""
    for first, second in CONTRADICTIONS:
        if vars(options)[first] and vars(options)[second]:
            raise ValueError(f"--{first} and --{second} contradict each other; give one of them")
    if options.out and options.out.is_dir():
        raise ValueError(f"--out {options.out}: a folder; name a file in it, as {options.out / 'answers.csv'}")
    if options.out and not options.out.parent.is_dir():
        raise ValueError(f"--out {options.out}: there is no folder {options.out.parent}; make it first")
    if options.image and options.image.is_dir():
        raise ValueError(f"--image {options.image}: a folder; give it as --images, or one picture")
    if options.images and not options.images.is_dir():
        raise ValueError(f"--images {options.images}: no such folder; give one of pictures, or one picture as --image")


def is_official(out: Path) -> bool:
    """Tell whether a file of answers is written in the official format."""
    return out.suffix.lower() == ".json"


def check_ids(out: Path, rows: Sequence[Row]) -> None:
    """ValueError where the official format cannot hold the answers: questions without ids, or one id twice."""
    if not all("question_id" in row for row in rows):
        raise ValueError(f"--out {out}: the official format needs VQA v2's question ids; name a .csv")
    number, times = Counter(int(row["question_id"]) for row in rows).most_common(1)[0]
    if times > 1:
        raise ValueError(f"--out {out}: question_id {number} comes {times} times; the official format takes it once")


def read_rows(options: argparse.Namespace) -> list[Row]:
    """Rows to answer. ValueError where what was given does not say what to ask about which picture."""
    if options.questions:
        rows = _read_questions(options)
    elif options.question and options.image:
        rows = [{"image": options.image, "question": options.question}]
    elif options.question and options.images:
        found = sorted(path for path in options.images.glob("*") if path.suffix.lower() in SUFFIXES)
        rows = [{"image": path, "question": options.question} for path in found]
    else:
        raise ValueError("give --image and --question, or --images and --question, or --questions")
    if not rows:
        raise ValueError(f"{options.questions or options.images}: nothing to ask about in it")
    return rows


def _read_questions(options: argparse.Namespace) -> list[Row]:
    try:
        return READERS.get(options.questions.suffix.lower(), _read_csv)(options)
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.questions}: not UTF-8 text at byte {error.start}; save it as UTF-8") from error
    except (csv.Error, RecursionError) as error:
        raise ValueError(f"{options.questions}: cannot be read: {error}") from error


def _read_csv(options: argparse.Namespace) -> list[Row]:
    with options.questions.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"image", "question"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{options.questions}: no column {' and '.join(sorted(missing))}; it needs image,question")
        return [_row(options, reader.line_num, record) for record in reader]


def _read_jsonl(options: argparse.Namespace) -> list[Row]:
    rows = []
    for number, line in enumerate(options.questions.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            try:
                rows.append(_row(options, number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise ValueError(f"{options.questions}, line {number}: not a JSON object ({error.msg})") from error
    return rows


def _row(options: argparse.Namespace, line: int, record: Any) -> Row:
    """Check one record of a table; pictures lie in --images, else beside the file."""
    fields = record if isinstance(record, dict) else {}
    for name in ("image", "question"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise ValueError(f"{options.questions}, line {line}: no {name}; each line needs an image and a question")
    if not str(fields.get("question_id", 0)).isdecimal():
        raise ValueError(f"{options.questions}, line {line}: question_id {fields['question_id']!r} is not a number")
    base = options.images or options.questions.parent
    return {**fields, "image": base / fields["image"]}


def _read_json(options: argparse.Namespace) -> list[Row]:
    if not options.images:
        raise ValueError("--questions with VQA v2 JSON also wants --images, the folder of its pictures")
    text = options.questions.read_text(encoding="utf-8-sig")
    try:
        content = json.loads(text)
        part = content["data_subtype"]
        rows = [
            {
                "question_id": row["question_id"],
                "image": options.images / f"COCO_{part}_{row['image_id']:012d}.jpg",
                "question": row["question"],
            }
            for row in content["questions"]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{options.questions}: not a VQA v2 questions file ({error!r})") from error
    for number, row in enumerate(rows):
        if type(row["question_id"]) is not int or not isinstance(row["question"], str):
            raise ValueError(f"{options.questions}: record {number} has no number question_id and text question")
    return rows


READERS = {".json": _read_json, ".jsonl": _read_jsonl}


def drop_unreadable(rows: Sequence[Row], *, skip: bool) -> list[Row]:
    """Leave out rows whose picture cannot be read, by name on stderr; ValueError for the first unless `skip`."""
    bad: dict[Path, str] = {}
    for path in dict.fromkeys(row["image"] for row in rows):
        try:
            read_picture(path)
        except ValueError as error:
            if not skip:
                raise
            bad[path] = str(error)
            print(f"skipped: {error}", file=sys.stderr)
    if len(bad) == len({row["image"] for row in rows}):
        raise ValueError("no picture could be read")
    return [row for row in rows if row["image"] not in bad]


def warn_truncated(answerer: Answerer, rows: Sequence[Row]) -> None:
    """Say on stderr, in one line, that the ends of long questions are not read."""
    question_counts = Counter(row["question"] for row in rows)
    if truncated := answerer.truncated(list(question_counts)):
        first = textwrap.shorten(truncated[0], SHOWN, placeholder=" …")
        number = sum(question_counts[question] for question in truncated)
        print(
            f"{number} of {len(rows)} questions have more than the {answerer.max_tokens} word pieces that the model "
            f"reads; the rest is ignored, first of {first!r}; ask shorter ones",
            file=sys.stderr,
        )


def answer_rows(answerer: Answerer, options: argparse.Namespace, rows: Sequence[Row]) -> list[list[Answer]]:
    """Answer every row, with progress on stderr where it takes long."""
    found: list[list[Answer]] = []
    for start in range(0, len(rows), BLOCK_SIZE):
        part = [(row["image"], row["question"]) for row in rows[start : start + BLOCK_SIZE]]
        found += answerer.answer_all(part, options.top, options.batch_size)
        if len(rows) > BLOCK_SIZE:
            print(f"answered {len(found)} of {len(rows)}", file=sys.stderr)
    return found


def write(path: Path, rows: Sequence[Row], found: Sequence[Sequence[Answer]]) -> None:
    """Write one answer per row: .json in the official format, else CSV."""
    best = [answers[0] for answers in found]
    if is_official(path):
        pairs = zip(rows, best, strict=True)
        results = [{"question_id": int(row["question_id"]), "answer": answer.text} for row, answer in pairs]
        path.write_text(json.dumps(results), encoding="utf-8")
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "question", "answer", "probability"])
        for row, answer in zip(rows, best, strict=True):
            writer.writerow([row["image"].name, row["question"], answer.text, f"{answer.probability:.6g}"])


def show(rows: Sequence[Row], found: Sequence[Sequence[Answer]], *, as_json: bool, several: bool) -> None:
    """Print every answer of one row, or the best of each of several; JSON is a list where `several` may be asked."""
    if as_json:
        listed = [
            {"image": str(row["image"]), "question": row["question"], "answers": [vars(answer) for answer in answers]}
            for row, answers in zip(rows, found, strict=True)
        ]
        print(json.dumps(listed if several else listed[0], indent=1))
    elif len(rows) == 1:
        width = max(len(answer.text) for answer in found[0])
        for answer in found[0]:
            print(f"{answer.text:<{width}}  {100 * answer.probability:6.2f} %")
    else:
        width = max(len(row["image"].name) for row in rows)
        for row, (best, *_) in zip(rows, found, strict=True):
            print(f"{row['image'].name:<{width}}  {row['question']}  {best.text}  {100 * best.probability:.1f} %")
