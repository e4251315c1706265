"""`python -m report`: figures and summary of a sweep, from its CSVs alone."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from report import ReportError
from report.write import write

COMMANDS: Final = {
    "all": "figures and summary (what you get without a command)",
    "figures": "FOLDER/figures/*.png, *.svg and *.pdf",
    "summary": "FOLDER/summary.md, linking the figures that are there",
}
NOT_YET: Final = {"html": "one interactive page", "paper": "a two-column LaTeX report", "bonus": "extra figures"}
EXAMPLES: Final = """\
FOLDER is what run_matrix.py wrote: it holds runs.csv. Nothing is trained or measured again.

examples:
  python -m report results/local            draw everything, write summary.md
  python -m report figures results/local    only the figures
  python -m report summary results/local    only the summary

figures: accuracy_vs_memory, accuracy_vs_ttt (with Pareto front), memory_breakdown, time_breakdown,
learning_curves; 3.5 inches wide, PNG at 150 dpi, SVG and PDF. The same CSVs give the same files, byte for byte.
exit status: 0 written; 2 the folder or a CSV cannot be used (one line says which, why, and what to do)."""


def parser() -> argparse.ArgumentParser:
    """Build the command line; `--help` is its documentation."""
    made = argparse.ArgumentParser(
        prog="python -m report",
        usage="python -m report [all|figures|summary] FOLDER",
        description="Draw the figures of a sweep and write its Markdown summary.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = "; ".join(f"{name}: {what}" for name, what in COMMANDS.items())
    later = "; ".join(f"{name}: {what}" for name, what in NOT_YET.items())
    made.add_argument("command", nargs="?", default="all", help=f"{commands}. Not yet: {later}")
    made.add_argument("folder", nargs="?", metavar="FOLDER", help="a folder with runs.csv")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = parser().parse_args(argv)
    command, folder = arguments.command, arguments.folder
    if folder is None and command not in (*COMMANDS, *NOT_YET):
        command, folder = "all", command
    if command in NOT_YET:
        return _refuse(f"{command}: not yet; there are: {', '.join(COMMANDS)}")
    if folder is None or command not in COMMANDS:
        problem = "which FOLDER?" if folder is None else f"unknown command {command!r}:"
        return _refuse(f"{problem} use python -m report [{'|'.join(COMMANDS)}] FOLDER (try --help)")
    try:
        print("\n".join(write(folder, command)))
    except ReportError as error:
        return _refuse(str(error))
    return 0


def _refuse(line: str) -> int:
    print(f"report: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
