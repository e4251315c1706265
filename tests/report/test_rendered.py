"""Hashes of what is not kept: written by a command, held by --check; outputs elsewhere; figures with stable ids."""

import hashlib
import re

import pytest

from report.__main__ import main
from report.errors import ReportError
from report.figures.style import _named_by_shape
from report.rendered import hashes_of


@pytest.fixture
def hashed(sweep, row, monkeypatch):
    """A small sweep whose page, paper and two figures are hashed."""
    monkeypatch.setattr("report.rendered.FIGURES", {"accuracy_vs_ttt": None})
    monkeypatch.setattr("report.rendered.ACROSS_SETTINGS", {"savings": None})
    folder = sweep([row("full"), row("lora")])
    assert main(["hashes", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_hashes_are_those_of_the_files(hashed):
    assert set(hashes_of(hashed)) == {
        "report.html", "paper/paper.tex", "figures/accuracy_vs_ttt.svg", "figures/savings.svg",
    }  # fmt: skip
    assert main(["html", str(hashed)]) == 0
    assert main(["figures", str(hashed), "--out", str(hashed.parent / "out")]) == 0
    for path in (hashed / "report.html", hashed.parent / "out" / hashed.name / "figures" / "accuracy_vs_ttt.svg"):
        name = path.name if path.suffix == ".html" else f"figures/{path.name}"
        assert hashes_of(hashed)[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    line = (hashed.parent / "rendered.sha256").read_text().splitlines()[0]
    assert re.fullmatch(rf"[0-9a-f]{{64}}  {hashed.name}/figures/accuracy_vs_ttt\.svg", line), "as sha256sum -c reads"


def test_what_would_come_out_otherwise_is_told_in_one_line(hashed, capsys):
    assert main(["--check", str(hashed)]) == 0
    runs = hashed / "runs.csv"
    runs.write_text(runs.read_text().replace("31.0", "32.0"))
    capsys.readouterr()
    assert main(["--check", str(hashed)]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{hashed}: what comes out is not what {hashed.parent / 'rendered.sha256'} says ")
    assert "(report.html, paper/paper.tex" in line
    assert line.endswith(f"python -m report hashes {hashed}")
    assert main(["hashes", str(hashed)]) == 0
    assert main(["--check", str(hashed)]) == 0


@pytest.mark.slow
def test_a_hash_too_many_or_too_few_is_told(hashed, capsys):
    file = hashed.parent / "rendered.sha256"
    text = file.read_text()
    file.write_text(text.replace("savings.svg", "other.svg"))
    capsys.readouterr()
    assert main(["--check", str(hashed)]) == 1
    assert "(figures/savings.svg, figures/other.svg)" in capsys.readouterr().out
    file.write_text("x" + text)
    with pytest.raises(ReportError, match=r"rendered\.sha256: line 1 is no hash"):
        hashes_of(hashed)


def test_other_sweeps_keep_their_hashes(hashed, sweep, row):
    first = hashes_of(hashed)
    assert main(["hashes", str(sweep([row("full")], name="other"))]) == 0
    assert hashes_of(hashed) == first
    lines = (hashed.parent / "rendered.sha256").read_text().splitlines()
    assert len(lines) == 8
    assert [line[66:] for line in lines] == sorted(line[66:] for line in lines)


def test_a_sweep_without_hashes_is_not_held_by_any(sweep, row):
    assert main(["--check", str(sweep([row("full"), row("lora")]))]) == 0


@pytest.mark.slow
def test_outputs_go_elsewhere_and_the_sweep_stays_as_it_is(sweep, row, tmp_path, monkeypatch):
    monkeypatch.setattr("report.paper.build.shutil.which", lambda program: None)
    folder = sweep([row("full"), row("lora")])
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command in ("summary", "html", "paper"):
        assert main([command, str(folder), "--out", str(tmp_path / "build")]) == 0
    place = tmp_path / "build" / folder.name
    assert {path.name for path in place.iterdir()} == {"summary.md", "comparisons.csv", "report.html", "runs", "paper"}
    assert (place / "runs").resolve() == (folder / "runs").resolve(), "the page's links to records lead somewhere"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_summary_shows_figures_as_they_are_there(sweep, row, capsys):
    folder = sweep([row("full"), row("lora")])
    (folder / "figures").mkdir()
    (folder / "figures" / "accuracy_vs_ttt.png").write_bytes(b"")
    assert main(["summary", str(folder)]) == 0
    assert "](figures/accuracy_vs_ttt.png)](figures/accuracy_vs_ttt.png)" in (folder / "summary.md").read_text()
    (folder / "figures" / "accuracy_vs_ttt.svg").write_bytes(b"")
    capsys.readouterr()
    main(["--check", str(folder)])
    assert "summary.md" not in capsys.readouterr().out, "a figure that was drawn later need not be in it"
    (folder / "figures" / "accuracy_vs_ttt.png").unlink()
    main(["--check", str(folder)])
    assert "summary.md is stale" in capsys.readouterr().out, "it shows what is not there"


def test_out_is_refused_where_it_means_nothing(sweep, capsys):
    for words in (["--check"], ["tables", "README.md"], ["hashes", "x"]):
        assert main([*words, "--out", "build"]) == 2
        assert "--out goes with all, bonus, figures, summary, html, paper" in capsys.readouterr().err


def test_clip_paths_are_named_by_what_is_written():
    svg = b'<g clip-path="url(#p0123456789)"/><clipPath id="%s">\n<rect x="1.5"/></clipPath><use href="#%s"/>'
    one, other = (_named_by_shape(svg.replace(b"p0123456789", name) % (name, name)) for name in (b"paaa", b"pbbb"))
    assert one == other
    assert one.count(re.search(rb'id="(p\w{10})"', one)[1]) == 3
    assert _named_by_shape(svg % (b"paaa", b"paaa")) != _named_by_shape(svg.replace(b"1.5", b"1.6") % (b"pa", b"pa"))
