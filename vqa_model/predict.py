"""Answers questions with a saved model: `python -m vqa_model.predict --model DIR --image X.jpg --question "…"`.

One picture and one question give a table of the likeliest answers. A folder of pictures gets the same question each;
a file of questions (VQA v2's own, or CSV or JSON lines with image and question) gets an answer each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_model.commands import command_parser, run_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXAMPLES = """examples:
  python -m vqa_model.predict --model exported/lora --image cat.jpg --question "What color is the cat?"
  python -m vqa_model.predict --model exported/lora --images pictures/ --question "Is this indoors?" --out answers.csv
  python -m vqa_model.predict --model exported/lora --questions asked.csv --images pictures/ --out answers.csv
  python -m vqa_model.predict --model exported/lora --questions v2_OpenEnded_mscoco_val2014_questions.json \\
      --images val2014/ --out results.json      (the official format, for `python -m vqa_model.score`)
"""


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("predict", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--model", required=True, metavar="DIR", help="folder that `run_matrix.py export` wrote, or a hub id")
    add("--image", type=Path, metavar="FILE", help="one picture")
    add("--images", type=Path, metavar="DIR", help="a folder of pictures, or where those of --questions lie")
    add("--question", help="what to ask about each picture")
    add(
        "--questions",
        type=Path,
        metavar="FILE",
        help="a file of questions: VQA v2 .json, or .csv or .jsonl with image, question",
    )
    add("--top", type=int, default=5, metavar="N", help="answers to show for one picture (default: 5)")
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help="write answers here (.json: official format, for questions with ids; else CSV)",
    )
    add("--json", action="store_true", help="print JSON in place of a table")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--batch-size", type=int, default=64, metavar="N", help="questions at a time (default: 64)")
    add("--skip-bad-images", action="store_true", help="leave out pictures that cannot be read")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.answering.batch:predict", arguments)


if __name__ == "__main__":
    sys.exit(main())
