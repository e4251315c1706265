"""The command line called as a function: what it proves of words and files needs no process of its own."""

import os
import signal
import subprocess
import tempfile
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.commands.cli import main
from bench.commands.streams import ENDING
from report.__main__ import main as report


@contextmanager
def caught(number, redirect):
    """A file with all that is written to a stream, by this process and by its children."""
    kept = os.dup(number)
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file, redirect(file):
        os.dup2(file.fileno(), number)
        try:
            yield file
        finally:
            file.flush()
            os.dup2(kept, number)
            os.close(kept)


def content(file):
    file.seek(0)
    return file.read()


def report_without_figures(command, **_):
    """In place of the process that draws a sweep's figures, which takes longer than its runs: texts alone, here."""
    assert command[1:4] == ["-m", "report", "all"]
    return subprocess.CompletedProcess(command, report(["summary", command[4]]))


def run_matrix(*words, cwd):
    """`run_matrix.py` with these words, in this process: its exit status and what it and its children printed.

    Figures are not drawn.
    """
    given, here = [str(word) for word in words], Path.cwd()
    handlers = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in ENDING)}
    os.chdir(cwd)
    with caught(1, redirect_stdout) as out, caught(2, redirect_stderr) as err, pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.sweep.run.subprocess", SimpleNamespace(run=report_without_figures))
        try:
            status = main(given)
        except SystemExit as ended:
            status = ended.code
        finally:
            os.chdir(here)
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return subprocess.CompletedProcess(given, status, content(out), content(err))
