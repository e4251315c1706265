"""What the README shows is executed: its Python as it stands, its commands as far as parsing them."""

import csv
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from statistics import mean, median

import pandas as pd
import pytest

from bench.arguments import make_parser
from bench.cli import make_request
from strategies import parse_plans
from strategies.presets import PRESETS
from vqa_model.fusions import FUSIONS

ALL_LAYERS = "lora(roles=['query','key','value','output','up','down'])"


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["our loop", "Trainer"])
def test_the_python_in_the_readme_runs(number, root, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3, "the third, on weights, runs in hand_ins/test_export.py"
    code = blocks[number]
    environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("*.safetensors"))


def test_the_commands_in_the_readme_are_understood(root):
    commands = re.findall(r"^python run_matrix\.py (--.*?)(?:\s+#.*)?$", (root / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command)
        assert make_request(make_parser().parse_args(arguments), arguments).plans


def test_the_table_in_the_readme_is_the_committed_sweep(root):
    with (root / "results" / "embedded" / "runs.csv").open() as file:
        rows = {row["strategy"]: row for row in csv.DictReader(file)}
    line = re.compile(r"^\| (\w[\w+]*) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) s", re.MULTILINE)
    lines = line.findall((root / "README.md").read_text())
    assert len(lines) == 8
    for name, *figures in lines:
        row = rows[name]
        measured = [100 * float(row[key]) for key in ("vqa_accuracy", "accuracy", "f1_macro")]
        assert [float(f) for f in figures] == [round(m, 1) for m in (*measured, float(row["ttt_seconds"]))], name


def test_the_table_of_adapters_is_the_committed_sweep(root):
    by_name = defaultdict(list)
    with (root / "results" / "embedded-adapters" / "runs.csv").open() as file:
        for row in csv.DictReader(file):
            assert row["status"] == "ok"
            by_name[row["strategy"]].append(row)
    assert {len(rows) for rows in by_name.values()} == {3}
    text = (root / "README.md").read_text().replace("lora, all linear layers", ALL_LAYERS)
    line = re.compile(r"^\| (\S+) \| ([\d.]+) \| ([\d.]+)–([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", re.MULTILINE)
    lines = line.findall(text)
    assert {name for name, *_ in lines} == set(by_name) - {"majority-answer", "question-only"}
    for name, *figures in lines:
        scores = [100 * float(row["vqa_accuracy"]) for row in by_name[name]]
        peaks = [
            mean(float(row[key]) for row in by_name[name]) / 2**20
            for key in ("peak_allocated_bytes", "activations_bytes")
        ]
        measured = [mean(scores), min(scores), max(scores), *peaks]
        assert [float(f) for f in figures] == [round(m, 1) for m in measured], name


def test_the_bonus_tables_are_the_committed_sweeps(root):
    """Ladder and recipes: every row of the preset, with the means of three seeds, on both data sets."""
    measured = {name: runs_of(root / "results" / name / "runs.csv") for name in ("embedded-bonus", "slice-bonus")}
    text = (root / "README.md").read_text().partition("## Fed and updated otherwise")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| `.*\d", line)]
    assert {row[0].strip("`") for row in rows} == {named.text for named in parse_plans(PRESETS["bonus"].plans)}
    for name, *cells in rows:
        told = [float(figure) for cell in cells for figure in re.findall(r"\d+(?:\.\d+)?", cell)]
        embedded = measured["embedded-bonus"][name.strip("`")]
        scores = [100 * float(row["vqa_accuracy"]) for row in embedded]
        memory = [
            mean(float(row[key]) for row in embedded) / 2**20
            for key in ("peak_allocated_bytes", "optimizer_bytes", "activations_bytes")
        ]
        here, *real = (
            times(measured[folder], name.strip("`"), key)
            for folder, key in [
                ("embedded-bonus", "ttt_seconds"),
                ("slice-bonus", "ttt_seconds"),
                ("slice-bonus", "peak_allocated_bytes"),
            ]
        )
        assert told[:3] == [round(x, 1) for x in (mean(scores), min(scores), max(scores))], name
        assert told[3:] == [round(here, 2), *(round(x, 1) for x in memory), *(round(x, 2) for x in real)], name


def test_the_table_of_rates_is_the_committed_sweep(root):
    measured = runs_of(root / "results" / "embedded-tuned" / "runs.csv")
    text = (root / "README.md").read_text().partition("## Each at its best rate")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \w.*\d", line)]
    assert {row[0] for row in rows} == set(measured)
    for name, *cells in rows:
        told = [float(figure) for cell in cells for figure in re.findall(r"\d+(?:\.\d+)?", cell)]
        runs = measured[name]
        tried = [round(100 * float(pair.partition("=")[2]), 1) for pair in runs[0]["tuned_rates"].split()]
        chosen = float(runs[0]["lr"] or runs[0]["head_lr"])
        scores = [round(100 * score, 1) for score in spread([float(row["vqa_accuracy"]) for row in runs])]
        assert told == [*tried, chosen, round(float(runs[0]["tuning_seconds"])), *scores], name


def spread(values):
    return mean(values), min(values), max(values)


def runs_of(path):
    """Give recipe → its rows, one per seed; all of them ended well. Controls and trials of rates are left out."""
    by_plan = defaultdict(list)
    with path.open() as file:
        for row in csv.DictReader(file):
            assert row["status"] == "ok", row["strategy"]
            if row["kind"] in {"baseline", "run"}:
                by_plan[row["strategy"]].append(row)
    assert {tuple(sorted(row["seed"] for row in rows)) for rows in by_plan.values()} == {("0", "1", "2")}
    return by_plan


def times(runs, plan, key):
    """Give how often the baseline of the same seed goes into a figure, the median of the seeds."""
    full = {row["seed"]: float(row[key]) for row in runs["full"]}
    return median(float(row[key]) / full[row["seed"]] for row in runs[plan])


def test_the_committed_sweep_meets_what_the_default_is_built_for(root):
    with (root / "results" / "embedded" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["status"] for row in rows} == {"ok"}
    accuracy = {row["strategy"]: float(row["accuracy"]) for row in rows}
    recipes = [accuracy[row["strategy"]] for row in rows if row["kind"] != "control"]
    assert 0.78 <= accuracy["full"] <= 0.95
    assert accuracy["full"] - accuracy["question-only"] >= 0.25
    assert max(recipes) - min(recipes) >= 0.04
    with (root / "results" / "embedded-random-towers" / "runs.csv").open() as file:
        random = {row["strategy"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    assert accuracy["full"] - random["full"] >= 0.08


def test_the_table_of_fusions_is_the_committed_sweeps(root):
    line = re.compile(r"^\| `(\w+)` \| [\d.]+ M \| [\d.]+ G \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
    lines = line.findall((root / "README.md").read_text())
    assert [name for name, *_ in lines] == list(FUSIONS)
    sweeps = [("embedded", "full"), ("embedded", "lora"), ("slice", "lora")]
    for name, *told in lines:
        for (place, strategy), figure in zip(sweeps, told, strict=True):
            runs = pd.read_csv(root / "results" / f"{place}-fusions" / "runs.csv")
            fusion = runs.setting.str.extract(r"fusion=(\w+)")[0].fillna("cross_attention")
            (run,) = runs[(runs.strategy == strategy) & (fusion == name)].vqa_accuracy
            assert float(figure) == pytest.approx(100 * run, abs=0.051), (name, place, strategy)
