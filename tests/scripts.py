"""Scripts in processes that have torch imported already: forks, of which this module is what runs in one."""

import os
import runpy
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.processes.environment import child_environment
from bench.processes.start import start


def forked(script, *words, cwd, ranks=1):
    """Run `python script words` at home in `cwd`, as so many ranks; gives what they print, and fails if one does."""
    words, here = [cwd, script, *words], Path.cwd()
    os.chdir(cwd)
    with tempfile.TemporaryFile("w+") as out:
        streams = {"output": out.fileno(), "errors": out.fileno()}
        try:
            children = [start("tests.scripts", words, child_environment(place), **streams) for place in places(ranks)]
        finally:
            os.chdir(here)
        ended = [child.wait() for child in children]
        out.seek(0)
        printed = out.read()
    assert ended == [0] * ranks, printed
    return printed


def forked_code(code, *words, cwd):
    """The same for `python -c code words`."""
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(code)
        script.flush()
        return forked(script.name, *words, cwd=cwd)


def places(ranks):
    """What torchrun sets for each of several processes; nothing for one."""
    if ranks == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": free.getsockname()[1]}
    shared |= {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    each = [{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in range(ranks)]
    return [{name: str(value) for name, value in place.items()} for place in each]


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
