"""Scores a results file as the official VQA evaluation does: `python -m vqa_model.score --questions … --results …`.

Prints `{"overall": …, "perAnswerType": {…}, "perQuestionType": {…}}`, plain means in percent, rounded to two
places. The rules are in `vqa_model/data/official_accuracy.py`, held to the official evaluator's own outputs by tests.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_model.commands import command_parser, run_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXAMPLE = """example:
  python -m vqa_model.score --questions v2_OpenEnded_mscoco_val2014_questions.json \\
      --annotations v2_mscoco_val2014_annotations.json --results results.json

A results file is a list of {"question_id": 1, "answer": "yes"}, one for every question; each run writes one."""


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("score", __doc__, EXAMPLE)
    add = parser.add_argument
    add("--questions", type=Path, required=True, metavar="Q.json", help="official questions file")
    add("--annotations", type=Path, required=True, metavar="A.json", help="official annotations file")
    add("--results", type=Path, required=True, metavar="R.json", help="answers to score")
    add("--per-question", type=Path, metavar="OUT.json", help="write the accuracy of each question in percent here")
    add(
        "--answered-only", action="store_true", help="leave out questions that have no result; the official one refuses"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.data.scoring:score_files", arguments)


if __name__ == "__main__":
    sys.exit(main())
