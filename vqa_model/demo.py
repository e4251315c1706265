"""A page to try models on pictures of one's own: `python -m vqa_model.demo --model DIR --model DIR`.

A picture and a question go in, the likeliest answers of every model come out side by side. The page is served to this
machine only unless --host says otherwise, takes pictures of limited size, and needs no network: fonts are the
reader's own and nothing is reported to anybody. Needs the extra `demo` (gradio).
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
  python -m vqa_model.demo --model exported/full --model exported/lora --examples pictures/"""


def make_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = command_parser("demo", __doc__, EXAMPLES)
    add = parser.add_argument
    add("--model", action="append", required=True, metavar="DIR", help="a saved model; several stand side by side")
    add("--examples", type=Path, metavar="DIR", help="a folder of pictures to offer on the page")
    add("--question", default="What color is it?", help="the question the page begins with")
    add("--top", type=int, default=5, metavar="N", help="answers to show (default: 5)")
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--host", default="127.0.0.1", help="address to serve (default: this machine only)")
    add("--port", type=int, default=7860, help="port to serve (default: 7860)")
    add("--max-upload-mb", type=int, default=10, metavar="MB", help="largest picture file taken (default: 10)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; gives the exit status, 2 for bad input."""
    return run_command(make_parser(), "vqa_model.answering.demo_page:serve", arguments)


if __name__ == "__main__":
    sys.exit(main())
