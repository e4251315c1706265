"""`python -m report`: what people read of a sweep, from its CSVs alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from report.check import stale, sweeps
from report.errors import ReportError
from report.figures.compatibility import write_compatibility
from report.page.build import write_page
from report.paper.build import write_paper
from report.rendered import write_hashes
from report.text.tables import update_tables
from report.write import DRAWN, write

COMMANDS: Final = {
    "all": "the basic figures and the summary (what you get without a command)",
    "bonus": "figures that compare optimisations: the ladder, leave one out, pairs, parts of an update, …",
    "figures": "every figure: FOLDER/figures/*.png, *.svg and *.pdf",
    "summary": "FOLDER/summary.md, linking the figures that are there, and FOLDER/comparisons.csv",
    "html": "FOLDER/report.html: every run in one page to open from disk, sorted, plotted and compared",
    "paper": "FOLDER/paper: a report in two-column IEEE style, LaTeX and PDF",
    "hashes": "FOLDER/../rendered.sha256, by which --check knows page, paper and figures (no FOLDER: all in results/)",
    "compatibility": "which strategies go together, drawn from docs/compatibility.csv beside it",
    "tables": "the result tables of Markdown files, between their '<!-- table' lines",
}
INTERRUPTED: Final = 130  # as shells count a Ctrl-C
EXAMPLES: Final = """\
FOLDER is what run_matrix.py wrote: it holds runs.csv. Nothing is trained or measured again.

examples:
  python -m report results/local              draw the basic figures, write summary.md
  python -m report bonus results/local        compare the optimisations with each other
  python -m report figures results/local      draw everything there is
  python -m report html results/local         one page to open in a browser
  python -m report paper results/local        a report to fill your names in and hand in
  python -m report paper results/embedded --out build/report     the same under build/report/embedded
  python -m report tables README.md           write its result tables anew
  python -m report compatibility docs/compatibility.csv
  python -m report --check                    is anything under results/, README.md or docs/ stale?

Figures are 3.5 inches wide (a column of a two-column paper), PNG at 150 dpi, SVG and PDF; a figure whose columns were
not measured says so in place of a plot. The same CSVs give the same files, byte for byte.
exit status: 0 done; 1 something is stale (--check); 2 a folder or file cannot be used (one line says which, why, and
what to do); 130 interrupted."""


def parser() -> argparse.ArgumentParser:
    """Build the command line; `--help` is its documentation."""
    made = argparse.ArgumentParser(
        prog="python -m report",
        usage="python -m report [COMMAND] FOLDER [FOLDER ...] [--out DIR]\n"
        "       python -m report --check [FOLDER ...]",
        description="Draw the figures of a sweep, write its summary, and keep tables true to the CSVs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = "; ".join(f"{name}: {what}" for name, what in COMMANDS.items())
    made.add_argument("command", nargs="?", metavar="COMMAND", help=commands)
    made.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="a folder with runs.csv; for tables and compatibility, a file"
    )
    place = f"for {', '.join((*DRAWN, *WRITERS))}: write into DIR/<the sweep's name>, not into FOLDER"
    made.add_argument("--out", type=Path, metavar="DIR", help=place)
    made.add_argument("--check", action="store_true", help="write nothing; name what is stale")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    arguments = parser().parse_args(argv)
    command, folders = arguments.command, arguments.folders
    if arguments.check or _is_folder(command, folders):
        command, folders = "all", [*([command] if command else []), *folders]
    if command == "hashes" and not folders:
        folders = sweeps(Path())
    if problem := _problem(command, folders, arguments):
        return _refuse(problem)
    try:
        if arguments.check:
            return _check([Path(folder) for folder in folders])
        for folder in folders:
            print("\n".join(_work(command, Path(folder), arguments.out)))
    except ReportError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("\nreport: interrupted; the same command writes it anew", file=sys.stderr)
        return INTERRUPTED
    return 0


def _problem(command: str | None, folders: list[Path], arguments: argparse.Namespace) -> str:
    """What is wrong with the words of a command line; empty when nothing is."""
    if command not in COMMANDS and command is not None:
        return f"unknown command {command!r}: it is one of {', '.join(COMMANDS)} (try --help)"
    if arguments.out and (arguments.check or command not in {*DRAWN, *WRITERS}):
        return f"--out goes with {', '.join((*DRAWN, *WRITERS))}; leave it out here"
    if not folders and not arguments.check:
        return f"which FOLDER? use python -m report [{'|'.join(COMMANDS)}] FOLDER (try --help)"
    return ""


def _is_folder(word: str | None, others: list[str]) -> bool:
    """Whether the first word is no command and stands for one of the folders."""
    return word not in {None, *COMMANDS} and (not others or Path(str(word)).is_dir())


def _tables(file: Path) -> list[str]:
    return [f"{file}: {'written anew' if update_tables(file) else 'nothing was stale'}"]


def _check(folders: list[Path]) -> int:
    found = list(stale(Path(), folders))
    print("\n".join(found) if found else "nothing is stale")
    return 1 if found else 0


def _work(command: str, folder: Path, out: Path | None) -> list[str]:
    """Run a command on one folder or file; the lines to print."""
    if command in HANDLERS:
        return HANDLERS[command](folder)
    return WRITERS[command](folder, out) if command in WRITERS else write(folder, command, out)


WRITERS: Final = {"html": write_page, "paper": write_paper}
HANDLERS: Final = {"compatibility": write_compatibility, "hashes": write_hashes, "tables": _tables}


def _refuse(line: str) -> int:
    print(f"report: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
