"""A script in a process that has torch imported already: `start("tests.scripts", [HOME, script, *words], …)`."""

import os
import runpy
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run a script as `python script words` would, at home in a folder; gives its exit status."""
    os.environ["HOME"], script, *words = arguments
    sys.argv = [script, *words]
    sys.path.insert(0, os.path.dirname(script))  # noqa: PTH120 - as the interpreter does
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
