"""Tables in Markdown are made from the CSVs, and what is stale is found."""

from pathlib import Path

import pytest

from report.__main__ import main
from report.check import stale
from report.errors import ReportError
from report.text.tables import COLUMNS, update_tables
from report.write import DRAWN

PAGE = """# Page

<!-- table sweep rows=recipes sort=vqa columns=recipe,vqa,ttt_ratio,peak -->
| typed | by hand |
<!-- end of table -->

After it.
"""


@pytest.fixture
def page(sweep, tmp_path):
    sweep()
    file = tmp_path / "page.md"
    file.write_text(PAGE)
    return file


def test_a_table_is_made_anew_and_then_fresh(page):
    assert update_tables(page)
    text = page.read_text()
    assert "| `full` | 85.2 | 1.00 | 61.0 |\n| `checkpointing` | 85.2 | 1.26 | 34.0 |" in text
    assert "typed" not in text
    assert "control" not in text
    assert text.startswith("# Page\n\n<!-- table sweep rows")
    assert text.endswith("<!-- end of table -->\n\nAfter it.\n")
    assert not update_tables(page)
    page.write_text(text.replace("61.0", "16.0"))
    assert update_tables(page, write=False)
    assert "16.0" in page.read_text(), "only asked"


def test_rows_may_be_named(page):
    page.write_text(PAGE.replace("rows=recipes sort=vqa", "rows=qlora;full"))
    update_tables(page)
    assert [line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| `")] == ["qlora", "full"]


def test_every_column_says_something(page):
    page.write_text(PAGE.replace("recipe,vqa,ttt_ratio,peak", ",".join(COLUMNS)))
    assert update_tables(page)
    assert "nan" not in page.read_text()


def test_columns_of_another_sweep_stand_beside(sweep, row, tmp_path):
    sweep(name="deep/one")
    sweep([row("full"), row("lora", ttt_seconds=310)], name="deep/two")
    file = tmp_path / "page.md"
    file.write_text("<!-- table deep/one rows=all columns=recipe,ttt_ratio,two:ttt_ratio -->\n<!-- end of table -->\n")
    update_tables(file)
    assert "| recipe | TTT × full | two: TTT × full |" in file.read_text()
    assert "| `lora` | 0.90 | 10.00 |" in file.read_text()
    assert "| `freeze` | 0.40 |  |" in file.read_text()
    assert "| *majority answer* |  |  |" in file.read_text()


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("sweep rows", "nowhere rows", "nowhere is not a folder"),
        ("peak", "speak", "column 'speak' is none of recipe"),
        ("rows=recipes", "rows=some", "rows=some is none of all"),
        ("rows=recipes", "rows=full;loro", "rows=loro is none of .* no recipe of the sweep"),
        ("sort=vqa", "order=vqa", "order= is none of columns"),
        ("sort=vqa", "setting=batch_size:3", "no run of the sweep has setting=batch_size:3"),
        ("<!-- end", "<!-- the end", "has no line '<!-- end of table -->'"),
    ],
)
def test_what_is_asked_wrongly_is_named_with_the_file(page, before, after, message):
    page.write_text(PAGE.replace(before, after))
    with pytest.raises(ReportError, match=message) as caught:
        update_tables(page)
    assert str(page) in str(caught.value)
    assert "typed" in page.read_text()


@pytest.mark.slow
def test_stale_files_are_named(sweep, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(DRAWN, "all", ("accuracy_vs_memory",))  # all are drawn for the sweep below
    folder = sweep(name="results/one")
    assert main([str(folder)]) == 0
    assert main(["--check"]) == 0
    (folder / "summary.md").write_text("old")
    figure = folder / "figures" / "accuracy_vs_memory.svg"
    figure.write_text(figure.read_text().replace("<svg", "<svg "))
    (folder / "figures" / "gone.svg").write_text("")
    (tmp_path / "README.md").write_text(PAGE.replace("table sweep", "table results/one"))
    found = list(stale(tmp_path, []))
    assert [line.split(" ")[0].rpartition("/")[2] for line in found] == [
        "summary.md", "accuracy_vs_memory.svg", "gone.svg", "README.md:",
    ]  # fmt: skip
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert capsys.readouterr().out.count("\n") == 4


@pytest.mark.slow
def test_several_sweeps_are_looked_at_in_processes(sweep, row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "zero"):
        (sweep([row("full")], name=f"results/{name}") / "summary.md").write_text("old")
    (tmp_path / "results" / "zero" / "runs.csv").write_text("")
    monkeypatch.setattr("report.check.load", None)  # here; the processes have one of their own
    found = stale(Path(), [])
    assert [next(found).split(" ")[0] for _ in range(2)] == ["results/one/summary.md", "results/two/summary.md"]
    with pytest.raises(ReportError, match="results/zero"):
        next(found)


@pytest.mark.slow
def test_the_committed_default_sweep_is_fresh(root):
    """Of all of them `.ci/run` asks (`python -m report --check`), which takes a minute."""
    assert list(stale(root, [root / "results" / "embedded"])) == []
