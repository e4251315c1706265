"""Shows what is in a VQA folder before anything is trained on it: `python -m vqa_model.inspect [DATA]`.

Answer types and top answers, how much of the data a vocabulary covers by size and by count, question lengths, agreement
between annotators, balanced pairs, picture sizes, missing and broken files. Without DATA: the picture world that ships.
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
  python -m vqa_model.inspect data/vqa2
  python -m vqa_model.inspect data/vqa2 --plots inspection/ --json facts.json
  python -m vqa_model.inspect data/vqa2 --all          decode every picture, to find broken ones"""


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("inspect", __doc__, EXAMPLES)
    add = parser.add_argument
    add(
        "data",
        nargs="?",
        type=Path,
        metavar="DATA",
        help="a folder in the official layout (default: the embedded world)",
    )
    add("--plots", type=Path, metavar="DIR", help="draw figures there, PNG and SVG")
    add("--json", type=Path, metavar="FILE", help="write all facts there")
    add("--all", action="store_true", help="decode every picture, not only the headers of 2,000")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.inspection.command:inspect_data", arguments)


if __name__ == "__main__":
    sys.exit(main())
