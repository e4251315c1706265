"""Runs every script of this folder whose docstring offers `[--quick]`, and gathers what they print in one page.

python performance/everything.py [--quick] [--only peers ladder]

Each has its own process, in the order of their names. A failure is told at the end and does not stop the others.
The page is results/summary.md; a quick run only prints it, as its figures say nothing.
"""

import argparse
import ast
import subprocess
import sys
from pathlib import Path

from measuring import RESULTS

from bench.records.environment import processor_name

FOLDER = Path(__file__).parent


def scripts() -> dict[str, str]:
    """First line of the docstring by the script's name, of all that can be run here."""
    told = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in sorted(FOLDER.glob("*.py"))}
    return {
        name: text.splitlines()[0]
        for name, text in told.items()
        if f"python performance/{name}.py" in text and "[--quick]" in text and name != Path(__file__).stem
    }


def run(name: str, *, quick: bool) -> tuple[str, int]:
    """What a script prints, and its exit status; its progress goes to the terminal."""
    command = [sys.executable, str(FOLDER / f"{name}.py"), *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout.strip(), done.returncode


def main(only: list[str], *, quick: bool) -> int:
    found = scripts()
    strange = [name for name in only if name not in found]
    if strange:
        print(f"no script {', '.join(strange)}; there are: {', '.join(found)}", file=sys.stderr)
        return 2
    parts, failed = [f"# Performance\n\nWritten by `make performance` on {processor_name()}."], []
    for name in only or found:
        print(f"{name}: {found[name]}", file=sys.stderr)
        printed, status = run(name, quick=quick)
        parts.append(f"## {name}\n\n{found[name]}\n\n`python performance/{name}.py`\n\n{printed}")
        failed += [name] if status else []
    page = "\n\n".join(parts) + "\n"
    print(page)
    if not quick and not only and not failed:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "summary.md").write_text(page, encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="scripts to run; all are, without")
    parser.add_argument("--quick", action="store_true", help="small and short: does it run?")
    sys.exit(main(**vars(parser.parse_args())))
