"""`python -m report`: files, exit codes, one-line errors, quick help."""

import os
import subprocess
import sys

import pytest

from report.__main__ import main
from report.figures.catalogue import ACROSS_SETTINGS, BASIC, FIGURES
from report.write import DRAWN


def files(names):
    return sorted(f"{name}.{ending}" for name in names for ending in ("png", "svg", "pdf"))


def drawn(folder):
    return sorted(path.name for path in (folder / "figures").iterdir())


def refused(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("report: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.slow
def test_default_draws_all_and_links_it_without_a_display_and_without_torch(sweep):
    folder = sweep()
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    code = f"import sys; from report.__main__ import main; print(main([{str(folder)!r}]), 'torch' in sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *lines, last = answer.stdout.splitlines()
    assert (len(lines), last, answer.stderr) == (3, "0 False", "")
    assert drawn(folder) == files(BASIC)
    text = (folder / "summary.md").read_text()
    assert all(f"figures/{name}.png" in text for name in BASIC)
    assert (folder / "comparisons.csv").is_file()


def test_every_figure_is_drawn_by_figures():
    assert set(DRAWN["figures"]) == {*FIGURES, *ACROSS_SETTINGS}


def test_summary_alone_links_no_figures_that_are_not_there(sweep):
    folder = sweep()
    assert main(["summary", str(folder)]) == 0
    assert not (folder / "figures").exists()
    assert "figures/" not in (folder / "summary.md").read_text()


@pytest.mark.slow
def test_each_setting_gets_its_own_figures(sweep, row, monkeypatch):
    folder = sweep([row("full"), row("lora"), row("lora", run_id="x", batch_size=8)])
    monkeypatch.setitem(DRAWN, "figures", ("accuracy_vs_ttt", "ladder", "savings"))
    assert main(["figures", str(folder)]) == 0
    assert len(drawn(folder)) == 3 * (2 * 2 + 1), "savings is of both"
    assert "accuracy_vs_ttt-2-batch-size-8.svg" in drawn(folder)
    assert not (folder / "summary.md").exists()


def test_bad_arguments(capsys, sweep, tmp_path):
    assert "which FOLDER?" in refused(capsys)
    assert "which FOLDER?" in refused(capsys, "figures")
    assert "unknown command 'figure'" in refused(capsys, "figure", sweep())
    assert "runs.csv" in refused(capsys, tmp_path)


def test_unwritable_place(capsys, sweep):
    folder = sweep()
    (folder / "figures").write_text("a file, not a folder")
    assert "cannot write figures" in refused(capsys, "figures", folder)


def test_nothing_is_written_when_a_csv_is_damaged(capsys, sweep):
    folder = sweep(predictions=False)
    (folder / "sections.csv").write_text("run_id,section,seconds\na,b\n")
    assert "sections.csv: line 2 has 2 cells, the header 3" in refused(capsys, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["history.csv", "metrics.csv", "runs.csv", "sections.csv"]


@pytest.mark.slow
def test_help_teaches():
    shown = subprocess.run([sys.executable, "-m", "report", "--help"], capture_output=True, text=True, check=True)
    assert "examples:" in shown.stdout
    assert "python -m report html" in shown.stdout
