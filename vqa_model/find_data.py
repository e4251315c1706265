"""Finds VQA v2 among mounted files, in any nesting, and links it into the official layout.

Kaggle mounts every attached data set under /kaggle/input, unpacked as its uploader packed it: the questions in one
folder, the pictures as train2014/train2014 in another. `python -m vqa_model.find_data --out data/vqa2` makes a folder
of links that `--data` reads. Nothing is copied, nothing is written where the data lies.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vqa_model.commands import command_parser, run_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXAMPLES = """example:
  python -m vqa_model.find_data --out data/vqa2        then: run_matrix.py --data data/vqa2 --fraction 0.25

`run_matrix.py --data kaggle` does both.

exit status: 0 all was found, 1 something is missing, 2 bad input"""
KAGGLE = Path("/kaggle/input")
OUT = Path("data/vqa2")


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("find_data", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--root", type=Path, default=KAGGLE, metavar="DIR", help=f"where to look (default: {KAGGLE})")
    add("--out", type=Path, default=OUT, metavar="DIR", help=f"folder to make, of links (default: {OUT})")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status."""
    return run_command(make_parser(), "vqa_model.data.mounted_files:find_and_link", arguments)


if __name__ == "__main__":
    sys.exit(main())
