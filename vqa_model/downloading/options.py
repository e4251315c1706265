"""What `python -m vqa_model.download` accepts, in words that teach."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any, Final, NoReturn

PROGRAM: Final = "vqa_model.download"
INCOMPLETE, USAGE, INTERRUPTED = 1, 2, 130  # exit statuses

EPILOG = """\
examples:
  python -m vqa_model.download --out data/vqa2                     a quarter of the training pictures, 4 GB
  python -m vqa_model.download --out data/vqa2 --dry-run           how much that would be; nothing is fetched
  python -m vqa_model.download --out data/vqa2 --fraction 1 --eval-fraction 1 --archives      everything, 20 GB
  python run_matrix.py --data data/vqa2 --fraction 0.25            use it

The same command goes on where it was stopped. Exit status: 0 all is there, 1 some files could not be had (they are
listed in failed.txt), 2 bad input, 130 interrupted.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{PROGRAM}: {message} (--help shows every option)\n")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and at most 1")
    return value


def _number(text: str, *, least: float, kind: type[float]) -> Any:
    try:
        value = kind(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a {'whole ' if kind is int else ''}number of {least:g} or more"
        )
    return value


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    whole, seconds = functools.partial(_number, kind=int), functools.partial(_number, least=0.01, kind=float)
    parser = _Parser(
        prog=f"python -m {PROGRAM}", description="Fetch VQA v2 (Balanced Real Images), or a sample of its pictures.",
        epilog=EPILOG, formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=100),
        allow_abbrev=False,
    )  # fmt: skip
    what = parser.add_argument_group("what")
    what.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder in the official layout")
    what.add_argument("--fraction", type=_share, default=0.25, metavar="SHARE",
                      help="share of the 82,783 training pictures (default: 0.25)")  # fmt: skip
    what.add_argument("--eval-fraction", type=_share, default=0.1, metavar="SHARE",
                      help="share of the 40,504 val pictures (default: 0.1)")  # fmt: skip
    what.add_argument("--split-seed", type=int, default=0, metavar="N", help="seed of both samples (default: 0)")
    what.add_argument("--questions-only", action="store_true", help="fetch no pictures")
    what.add_argument("--archives", action="store_true",
                      help="fetch the archives of all pictures (13.5 and 6.6 GB) and unpack the sample")  # fmt: skip
    what.add_argument(
        "--base-url", default="", metavar="URL", help="a mirror that holds everything (default: official)"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--workers", type=functools.partial(whole, least=1), default=16, metavar="N",
                     help="files at a time (default: 16)")  # fmt: skip
    how.add_argument("--retries", type=functools.partial(whole, least=0), default=6, metavar="N",
                     help="further attempts per file (default: 6)")  # fmt: skip
    how.add_argument("--stall-seconds", type=seconds, default=30.0, metavar="S",
                     help="an attempt without a byte for this long has failed (default: 30)")  # fmt: skip
    how.add_argument("--backoff-seconds", type=seconds, default=1.0, metavar="S",
                     help="wait before the second attempt, doubled for each further one (default: 1)")  # fmt: skip
    how.add_argument("--verify", action="store_true", help="check all that is there already, byte by byte")
    how.add_argument("--skip-bad-images", action="store_true",
                     help="write download.json although pictures failed; train with the same option")  # fmt: skip
    how.add_argument("--dry-run", action="store_true", help="say what would be fetched and how large, fetch nothing")
    return parser
