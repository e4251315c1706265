"""Fetches VQA v2 into the folder that the task reads: `python -m vqa_model.download --out data/vqa2`.

A quarter of the training pictures is 3.4 GB of 13.5, so questions come first and say which pictures their sample needs;
these are fetched one by one. The sample is the task's own for the same fraction and seed. What lies there whole is
never fetched again, so the same command goes on after whatever stopped it. `download.json` is written last and says
which sample there is.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from vqa_model.downloading.fetcher import FetchError
from vqa_model.downloading.options import INCOMPLETE, INTERRUPTED, PROGRAM, USAGE, make_parser
from vqa_model.downloading.run import download

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = make_parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # end as Ctrl-C does, unless nohup keeps them off
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        return download(options)
    except FetchError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return INCOMPLETE
    except (ValueError, OSError) as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\ninterrupted: what has arrived is kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
