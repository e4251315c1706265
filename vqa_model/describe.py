"""Tells what a model is made of: `python -m vqa_model.describe [--model SIZE] [--fusion CALL | --fusion all]`.

Parameters of each part, and operations (FLOPs, two for a multiplication with addition) of one forward pass for a
question on a picture. Nothing is downloaded or loaded unless a checkpoint is named, and then only its configuration.
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
  python -m vqa_model.describe --model base --fusion all        every fusion head at ViT-B and BERT-base
  python -m vqa_model.describe --model base --fusion "co_attention(layers=6)"
  python -m vqa_model.describe --model base --diagram model.svg   or model.tex, for LaTeX with tikz"""


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("describe", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--model", default="tiny", metavar="SIZE", help="tiny, small, base or large (default: tiny)")
    add("--vision", default="", metavar="CHECKPOINT", help="ViT-family checkpoint in place of the size's own tower")
    add("--text", default="", metavar="CHECKPOINT", help="BERT-family checkpoint in place of the size's own tower")
    add("--fusion", default="cross_attention", metavar="CALL", help="a fusion head, or all (default: cross_attention)")
    add("--answers", type=int, default=3129, metavar="N", help="answers of the vocabulary (default: 3129)")
    add("--words", type=int, default=20, metavar="N", help="word pieces of the question (default: 20)")
    add("--diagram", type=Path, metavar="FILE", help="draw the model: .svg, or .tex for TikZ")
    add("--json", action="store_true", help="print JSON in place of a table")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.modeling.model_summary:describe", arguments)


if __name__ == "__main__":
    sys.exit(main())
