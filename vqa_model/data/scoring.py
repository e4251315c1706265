"""The official evaluation of a results file: read, matched with its questions, scored by type of answer and question.

The rule is in `official_accuracy`, held to the official evaluator's own outputs by tests.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from vqa_model.data.official_accuracy import accuracy
from vqa_model.data.official_files import read_questions
from vqa_model.data.questions import QuestionsById

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence
    from pathlib import Path

DECIMALS = 2  # decimals of a percentage, as the official evaluation rounds


def read_results(path: Path) -> dict[int, str]:
    """Read answers by question id; ValueError names the first record that is none or repeats."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged JSON at line {error.lineno} column {error.colno} ({error.msg})") from error
    kind = type(content).__name__
    if kind != "list":
        raise ValueError(f"{path}: not a results file: a {kind}, not a list of question_id and answer")
    found: dict[int, str] = {}
    for number, row in enumerate(content):
        fields = (row.get("question_id"), row.get("answer")) if isinstance(row, dict) else (None, None)
        if type(fields[0]) is not int or not isinstance(fields[1], str):
            raise ValueError(f"{path}: record {number} has no number question_id and text answer")
        if fields[0] in found:
            raise ValueError(f"{path}: record {number} answers question {fields[0]} again; keep one answer")
        found[fields[0]] = fields[1]
    return found


def score(results: dict[int, str], questions: QuestionsById) -> tuple[dict[str, Any], dict[int, float]]:
    """Give the official summary in percent, and each question's accuracy in percent, both rounded."""
    per_question: dict[int, float] = {}
    groups: dict[str, dict[str, list[float]]] = {"perAnswerType": {}, "perQuestionType": {}}
    every: list[float] = []
    for question_id, answer in results.items():
        question = questions[question_id]
        value = accuracy(answer, question.answers)
        every.append(value)
        groups["perAnswerType"].setdefault(question.answer_type, []).append(value)
        groups["perQuestionType"].setdefault(question.question_type, []).append(value)
        per_question[question_id] = round(100 * value, DECIMALS)
    types = {name: {kind: _percent(values) for kind, values in kinds.items()} for name, kinds in groups.items()}
    return {"overall": _percent(every), **types}, per_question


def _percent(values: Sequence[float]) -> float:
    return round(100 * float(sum(values)) / len(values), DECIMALS)


def match(results: dict[int, str], known: Iterable[int], file: Path, *, answered_only: bool) -> dict[int, str]:
    """Check that results and questions have the same ids; ValueError with the first that differs."""
    ids = set(known)
    strange = [number for number in results if number not in ids]
    if strange:
        raise ValueError(f"{file}: {len(strange)} results are of no question here, the first of {strange[0]}")
    missing = sorted(ids - set(results))
    if missing and not answered_only:
        raise ValueError(
            f"{file}: {len(missing)} of {len(ids)} questions have no result, the first {missing[0]}; answer all, "
            "or use --answered-only"
        )
    if missing:
        print(f"left out {len(missing)} of {len(ids)} questions, which have no result", file=sys.stderr)
    if not results:
        raise ValueError(f"{file}: no results in it")
    return results


def score_files(options: argparse.Namespace) -> None:
    """Score what the options name and print the summary."""
    questions = QuestionsById([read_questions(options.questions, options.annotations)])
    results = match(read_results(options.results), questions, options.results, answered_only=options.answered_only)
    summary, per_question = score(results, questions)
    if options.per_question:
        options.per_question.write_text(json.dumps(per_question), encoding="utf-8")
    print(json.dumps(summary, indent=1))
