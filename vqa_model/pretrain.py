"""Makes the two tiny towers that ship with the package: `python -m vqa_model.pretrain`.

Each tower is pretrained on its own kind of data alone, as ViT and BERT are: the ViT names colour
and shape of what stands in each region of generated pictures; the BERT fills in masked words of
generated questions. They never meet before fine-tuning, and their pictures come from another seed
than the task's. A few minutes on two cores.
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
  python -m vqa_model.pretrain --out towers            a ViT and a BERT to compare with those that ship"""
SHIPPED = Path(__file__).resolve().parent / "towers"


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("pretrain", __doc__, EXAMPLE)
    add = parser.add_argument
    add("--out", type=Path, default=SHIPPED, metavar="DIR", help="folder for vision/ and text/ (default: %(default)s)")
    add("--vision-steps", type=int, default=1500, metavar="N", help="updates of the ViT (default: %(default)s)")
    add("--text-steps", type=int, default=300, metavar="N", help="updates of the BERT (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.pretraining.tiny_towers:pretrain", arguments)


if __name__ == "__main__":
    sys.exit(main())
