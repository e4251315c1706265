"""How the command lines here begin and end: arguments first, then what is heavy, and one line for what is wrong.

Importing torch and transformers takes seconds, which nobody should wait for to read `--help` or to hear of a typing
mistake. So a command is two files: its arguments, and its work, which is named as "module:function" and imported when
the arguments are known.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BAD_INPUT = 2


def command_parser(name: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """Give an empty parser of `python -m vqa_model.<name>`, with its text as it was written."""
    return argparse.ArgumentParser(
        prog=f"python -m vqa_model.{name}",
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run_command(parser: argparse.ArgumentParser, work: str, arguments: Sequence[str] | None) -> int:
    """Run a command; gives the exit status, 2 where ValueError or OSError say what is wrong with the input.

    work: "module:function" of a function that takes the parsed options and may give another status than 0.
    """
    options = parser.parse_args(arguments)
    module, _, function = work.partition(":")
    do: Callable[[argparse.Namespace], int | None] = vars(importlib.import_module(module))[function]
    try:
        return do(options) or 0
    except (ValueError, OSError) as error:
        print(f"{parser.prog.removeprefix('python -m ')}: {error_line(error)}", file=sys.stderr)
        return BAD_INPUT


def error_line(error: Exception) -> str:
    """What is wrong, in one line: the file first where the system refused one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; name another"
    return str(error)
