"""The page as a file: what it holds, that text stays text, what it says of what is missing or damaged."""

import json
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from report.errors import ReportError
from report.frames.results import load
from report.page.build import safe, write_page

MIB = 2**20
NASTY = "</script><script>alert(1)</script>&\"'\u2028 ∑"


def test_a_page_is_one_file_that_asks_for_nothing(sweep):
    folder = sweep()
    (line,) = write_page(folder)
    assert re.fullmatch(rf"{re.escape(str(folder))}/report\.html: \d\.\d MiB, one page", line)
    text = (folder / "report.html").read_text()
    markup = re.sub(r"<script type=\"module\">.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=[\"']?(?!data:|#)[^\"'> ]+", markup)
    assert "connect-src" not in text
    assert "default-src 'none'" in text
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    assert json.loads(block)["title"] == "sweep"


def test_text_from_data_is_never_markup(sweep, row):
    rows = [row("full"), row(NASTY, run_id="aa"), row("lora", run_id="bb", status="failed", reason=NASTY)]
    folder = sweep(rows, name="a&b<i>")
    write_page(folder)
    text = (folder / "report.html").read_text()
    assert "<script>alert" not in text
    assert "a&amp;b&lt;i&gt;" in text
    assert text.count("</script>") == 3


def test_json_in_a_script_comes_back_as_it_was():
    value = {"a": [NASTY, "<!--", None, 1.5, "ü"]}
    assert not set(safe(value)) & set("<>&")
    assert json.loads(safe(value)) == value


def test_the_same_results_make_the_same_page(sweep):
    folder = sweep()
    write_page(folder)
    first = (folder / "report.html").read_bytes()
    write_page(folder)
    assert (folder / "report.html").read_bytes() == first


def test_a_page_that_cannot_be_written_says_so(sweep, monkeypatch):
    folder = sweep()
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ReportError, match=r"report\.html: cannot be written \(No space left on device\)"):
        write_page(folder)


@pytest.mark.parametrize("text", ["", "run_id,status\n", "a,b\n1,2\n", "run_id,status\nx,ok,3\n", "run_id\nx"])
def test_damaged_csvs_are_refused_by_name(tmp_path, text):
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(ReportError, match=r"runs\.csv"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_importing_it_loads_no_heavy_package():
    heavy = ("jinja2", "vl_convert", "altair", "torch", "transformers")
    code = f"import sys, report.page.build; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_what_page_and_paper_are_made_of_is_packaged(root):
    declared = re.search(r'^"\*" = \[(.*)\]$', (root / "pyproject.toml").read_text(), re.MULTILINE)[1]
    patterns = re.findall(r'"([^"]+)"', declared)
    parts = [path for room in ("page", "paper") for path in (root / "report" / room).iterdir() if path.is_file()]
    assert {path.suffix for path in parts} >= {".js", ".css", ".j2", ".jinja", ".bib"}
    assert [path for path in parts if path.suffix != ".py" and not any(path.match(p) for p in patterns)] == []


def test_missing_side_files_are_no_error(sweep, data_of):
    data = data_of(sweep())
    assert data["notes"] == []
    assert data["command"] == ""
    assert data["examples"] == []
    assert not any(record["there"] for record in data["records"])


def test_damaged_side_files_are_named(sweep):
    folder = sweep()
    first = load(folder).runs["run_id"][0]
    (folder / "sweep.json").write_text("{")
    (folder / "strategies.json").write_text("[]")
    (folder / "examples").mkdir()
    (folder / "examples" / "examples.json").write_text('[{"id": 1}, {"id": 2, "question": "?", "image": "../x.png"}]')
    (folder / "runs" / first / "record.json").write_text("no json")
    said = "\n".join(write_page(folder))
    for words in (
        "sweep.json: not readable as JSON", "strategies.json: holds no table", "example 1 has no id or question",
        "example 2: its picture is missing", "record.json: not readable",
    ):  # fmt: skip
        assert words in said


def test_a_run_id_that_is_a_path_is_not_followed(sweep, row, tmp_path, data_of):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "log.txt").write_text("private")
    folder = sweep([row("full"), row("lora", run_id="../../secret")], predictions=False)
    (folder / "runs").mkdir()
    assert [record["log"] for record in data_of(folder)["records"]] == ["", ""]


def test_the_end_of_a_log_is_there(sweep, row, data_of):
    folder = sweep([row("full"), row("lora", status="failed", reason="died")], predictions=False)
    (folder / "runs" / row("lora")["run_id"]).mkdir(parents=True)
    (folder / "runs" / row("lora")["run_id"] / "log.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    assert data_of(folder)["records"][1]["log"].splitlines() == [f"line {i}" for i in range(75, 100)]


def test_records_beyond_the_room_are_left_out_and_named(sweep, row, monkeypatch, data_of):
    monkeypatch.setattr("report.page.sidecars.MAX_RECORD_BYTES", 200)
    folder = sweep([row("full"), row("lora")])
    for name in ("full", "lora"):
        spec = {"spec": {"plan": name, "note": "x" * 80}}
        (folder / "runs" / row(name)["run_id"] / "record.json").write_text(json.dumps(spec))
    data = data_of(folder)
    assert [record["spec"] is None for record in data["records"]] == [False, True]
    assert "too many for one page" in data["notes"][0]


def test_examples_have_pictures_and_every_runs_answer(root, tmp_path, data_of):
    folder = shutil.copytree(root / "results" / "embedded", tmp_path / "embedded")
    data = data_of(folder)
    assert len(data["examples"]) == 6
    assert all(example["picture"].startswith("data:image/png;base64,") for example in data["examples"])
    assert [len(answers) for answers in data["answers"]] == [6] * 30
    table = pd.read_parquet(folder / "predictions.parquet")
    table = table[table["run_id"] == data["runs"]["run_id"][0]].set_index("id")
    for example, (text, _, score) in zip(data["examples"], data["answers"][0], strict=True):
        assert (text, score) == (table.loc[example["id"], "prediction"], table.loc[example["id"], "score"])


@pytest.mark.slow
def test_committed_sweeps_fit(root, tmp_path):
    for name in ("embedded", "embedded-bonus", "embedded-tuned"):
        folder = shutil.copytree(root / "results" / name, tmp_path / name)
        assert write_page(folder)[1:] == []
        assert (folder / "report.html").stat().st_size < 5 * MIB


def test_side_files_of_another_shape_do_no_harm(sweep, data_of):
    folder = sweep()
    (folder / "sweep.json").write_text('{"command": "rm"}')
    (folder / "strategies.json").write_text('{"lora": {"summary": 1, "papers": "x", "text": "said"}, "amp": []}')
    (folder / "examples").mkdir()
    (folder / "examples" / "examples.json").write_text(
        '[{"id": "q1", "question": 5, "answers": 7}, {"id": [], "question": "?"}]'
    )
    data = data_of(folder)
    assert data["command"] == ""
    assert data["cards"] == {"lora": {"text": "said"}}
    assert [(example["id"], example["question"], example["answers"]) for example in data["examples"]] == [
        ("q1", "5", [])
    ]
