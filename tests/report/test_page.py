"""The page without a browser: what it holds, what it computes ahead, what it says of what is missing or damaged."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from bench.arguments import make_parser
from bench.record import RUN_COLUMNS
from report import ReportError
from report.compare import compare
from report.inference import two_recipes, two_runs
from report.page import differences, safe, write_page
from report.page.columns import columns
from report.page.command import run_command, sweep_command
from report.page.data import NEVER, number, page_data
from report.paired import read_scores
from report.results import load

MIB = 2**20
NASTY = "</script><script>alert(1)</script>&\"'\u2028 ∑"


def data_of(folder):
    results = load(folder)
    return page_data(results, compare(results))


def place(pairs, one, other):
    i, j = sorted((one, other))
    return i * len(pairs["members"]) - i * (i + 1) // 2 + j - i - 1


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


@pytest.mark.parametrize("text", ["", "run_id,status\n", "a,b\n1,2\n", "run_id,status\nx,ok,3\n", "run_id,status\nx,ok"])
def test_damaged_csvs_are_refused_by_name(tmp_path, text):
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(ReportError, match=r"runs\.csv"):
        write_page(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_importing_it_loads_no_heavy_package():
    heavy = ("jinja2", "vl_convert", "altair", "torch", "transformers")
    code = f"import sys, report.page; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_what_the_page_is_made_of_is_packaged(root):
    declared = re.search(r"^report = \[(.*)\]$", (root / "pyproject.toml").read_text(), re.MULTILINE)[1]
    patterns = re.findall(r'"([^"]+)"', declared)
    packed = {path.name for pattern in patterns for path in (root / "report").glob(pattern)}
    assert packed == {path.name for path in (root / "report" / "page").iterdir() if path.suffix not in {".py", ""}}


def test_numbers_for_json():
    found = [number(value) for value in (float("nan"), float("inf"), 3.0, 0.1234567, 2.5e9)]
    assert found == [None, NEVER, 3, 0.123457, 2_500_000_000]


def test_columns_know_their_kind_and_which_direction_is_better(sweep):
    runs = load(sweep()).runs
    found, empty = columns(runs)
    known = {column["key"]: (column["kind"], column["better"]) for column in found}
    assert known["vqa_accuracy"] == ("share", "high")
    assert known["ttt_seconds"] == ("seconds", "low")
    assert known["peak_allocated_bytes"] == ("bytes", "low")
    assert known["samples_per_second"] == ("rate", "high")
    assert known["seed"] == ("number", "")
    assert known["strategy"] == ("text", "")
    assert "mfu" in empty
    assert set(known) | set(empty) == set(RUN_COLUMNS)
    assert all(column["help"] and column["name"] for column in found)


def test_every_pair_of_runs_is_what_inference_says(sweep, row):
    names = ("full", "lora", "freeze", "qlora")
    folder = sweep([row(name, seed=seed) for name in names for seed in (0, 1)])
    data = data_of(folder)
    scores = read_scores(folder, load(folder).runs["run_id"])
    ids, pairs = data["runs"]["run_id"] if "run_id" in data["runs"] else [], data["pairs"]
    assert pairs["members"] == list(range(8))
    for i, j in combinations(range(8), 2):
        gap = (scores[ids[i]] - scores[ids[j]]).to_numpy()
        expected, at = two_runs(gap), place(pairs, i, j)
        found = [pairs[key][at] for key in ("difference", "low", "high")]
        assert found == pytest.approx(expected[:3], abs=1e-6)
        assert [pairs["ahead"][at], pairs["behind"][at]] == [(gap > 0).sum(), (gap < 0).sum()]


def test_recipes_are_compared_over_the_seeds_they_share(sweep, row):
    rows = [row(name, seed=seed) for name in ("full", "lora", "freeze") for seed in (0, 1, 2)]
    folder = sweep([one for one in rows if (one["strategy"], one["seed"]) != ("lora", 2)])
    pairs = data_of(folder)["settings"][0]["pairs"]
    scores = read_scores(folder, pd.Series([one["run_id"] for one in rows]))
    ids = {(one["strategy"], one["seed"]): one["run_id"] for one in rows}
    for one, other, seeds in (("full", "lora", 2), ("lora", "freeze", 2), ("full", "freeze", 3)):
        members = pairs["members"]
        gaps = np.stack([scores[ids[one, seed]] - scores[ids[other, seed]] for seed in range(seeds)])
        sign = 1 if members.index(one) < members.index(other) else -1
        at = place(pairs, members.index(one), members.index(other))
        assert sign * pairs["difference"][at] == pytest.approx(two_recipes(gaps).difference, abs=1e-6)
        assert pairs["high"][at] - pairs["low"][at] == pytest.approx(
            two_recipes(gaps).high - two_recipes(gaps).low, abs=3e-6
        )


def test_one_seed_compares_no_recipes(sweep):
    assert data_of(sweep())["settings"][0]["pairs"] is None


def test_too_many_pairs_leave_those_with_the_baseline_and_say_so(sweep, row, monkeypatch):
    monkeypatch.setattr(differences, "MAX_PAIRS", 2)
    folder = sweep([row(name) for name in ("full", "lora", "freeze")])
    data = data_of(folder)
    assert data["pairs"] is None
    assert "3 runs make too many pairs" in data["no_pairs"]
    ids = data["runs"]["run_id"]
    table = compare(load(folder))[0].paired.query("level == 'run'").set_index("run_id")
    assert len(data["baselines"]) == 2
    for found in data["baselines"]:
        assert found["difference"] == pytest.approx(table.loc[ids[found["run"]], "difference"], abs=1e-6)


def test_runs_on_other_data_are_not_paired(sweep, row):
    data = data_of(sweep([row("full"), row("lora"), row("freeze", dataset="another")]))
    assert data["pairs"]["questions"] == [200, 0, 0]


def test_without_predictions_there_are_no_differences(sweep):
    data = data_of(sweep(predictions=False))
    assert data["pairs"] is None
    assert "no two runs have scores" in data["no_pairs"]
    assert data["baselines"] == []


def test_missing_side_files_are_no_error(sweep):
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


def test_a_run_id_that_is_a_path_is_not_followed(sweep, row, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "log.txt").write_text("private")
    folder = sweep([row("full"), row("lora", run_id="../../secret")], predictions=False)
    (folder / "runs").mkdir()
    assert [record["log"] for record in data_of(folder)["records"]] == ["", ""]


def test_the_end_of_a_log_is_there(sweep, row):
    folder = sweep([row("full"), row("lora", status="failed", reason="died")], predictions=False)
    (folder / "runs" / row("lora")["run_id"]).mkdir(parents=True)
    (folder / "runs" / row("lora")["run_id"] / "log.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    assert data_of(folder)["records"][1]["log"].splitlines() == [f"line {i}" for i in range(75, 100)]


def test_records_beyond_the_room_are_left_out_and_named(sweep, row, monkeypatch):
    monkeypatch.setattr("report.page.side_files.MAX_RECORD_BYTES", 200)
    folder = sweep([row("full"), row("lora")])
    for name in ("full", "lora"):
        spec = {"spec": {"plan": name, "note": "x" * 80}}
        (folder / "runs" / row(name)["run_id"] / "record.json").write_text(json.dumps(spec))
    data = data_of(folder)
    assert [record["spec"] is None for record in data["records"]] == [False, True]
    assert "too many for one page" in data["notes"][0]


def test_long_curves_are_thinned_to_their_ends(sweep, monkeypatch):
    monkeypatch.setattr("report.page.data.MAX_POINTS", 50)
    folder = sweep()
    data = data_of(folder)
    history = load(folder).history
    for run_id, curves in data["curves"].items():
        steps = curves["train loss"][0]
        assert len(steps) <= 12
        assert steps[-1] == history[(history["run_id"] == run_id) & (history["split"] == "train")]["step"].max()
    assert "learning curve" in data["notes"][0]


def test_commands_are_accepted_by_the_command_line(root):
    """Those of every committed run."""
    parser, seen = make_parser(), 0
    for folder in sorted((root / "results").glob("*/")):
        if not (folder / "runs.csv").is_file():
            continue
        words = json.loads((folder / "sweep.json").read_text())["command"]
        for row in load(folder).runs.to_dict("records"):
            record = json.loads((folder / "runs" / row["run_id"] / "record.json").read_text())
            command, _ = run_command(row, record["spec"], words)
            python, script, *given = shlex.split(command)
            assert python == "python"
            if script == "run_matrix.py":
                arguments = parser.parse_args(given)
                assert row["kind"] == "control" or arguments.seeds == [row["seed"]]
                assert row["kind"] == "control" or arguments.strategies == row["strategy"]
                seen += 1
    assert seen > 200


def test_a_command_keeps_what_decides_the_run(row):
    spec = {"task_text": "vqa_model.task:VQATask(towers='random')", "epochs": 2.0, "max_steps": 7}
    tuned = row("lora(r=4)", seed=3) | {"tuned_rates": "0.1=0.5", "lr": 0.003}
    command, note = run_command(tuned, spec, ["--tune", "3"])
    assert command == (
        "python run_matrix.py --task 'vqa_model.task:VQATask(towers='\"'\"'random'\"'\"')' --strategies 'lora(r=4)' "
        "--seeds 3 --batch-size 64 --epochs 2 --max-steps 7 --lr 0.003 --no-baseline --out results/again"
    )
    assert "tuned" in note
    control = row("majority-answer") | {"tuned_rates": ""}
    assert run_command(control, {}, ["--out", "x"])[0] == "python run_matrix.py --out x"
    assert sweep_command(["performance/gpu_reference.py"]) == "python performance/gpu_reference.py"


def test_examples_have_pictures_and_every_runs_answer(root, tmp_path):
    folder = shutil.copytree(root / "results" / "embedded", tmp_path / "embedded")
    data = data_of(folder)
    assert len(data["examples"]) == 6
    assert all(example["picture"].startswith("data:image/png;base64,") for example in data["examples"])
    assert [len(answers) for answers in data["answers"]] == [6] * 10
    table = pd.read_parquet(folder / "runs" / data["runs"]["run_id"][0] / "predictions.parquet").set_index("id")
    for example, (text, _, score) in zip(data["examples"], data["answers"][0], strict=True):
        assert (text, score) == (table.loc[example["id"], "prediction"], table.loc[example["id"], "score"])


@pytest.mark.slow
def test_committed_sweeps_fit(root, tmp_path):
    for name in ("embedded", "embedded-bonus", "embedded-tuned"):
        folder = shutil.copytree(root / "results" / name, tmp_path / name)
        assert write_page(folder)[1:] == []
        assert (folder / "report.html").stat().st_size < 5 * MIB
