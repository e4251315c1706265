"""What the README shows is executed: its Python as it stands, its commands as far as parsing them."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.commands.arguments import make_parser
from bench.commands.cli import make_request
from report.frames.compare import compare
from report.frames.results import load
from report.text.tables import update_tables
from strategies import parse_plans
from strategies.language.presets import PRESETS
from tests.scripts import forked
from vqa_model.modeling.fusion.registry import FUSIONS

# What the second block finds: a base, batches and a prompt.
WHAT_IT_NEEDS = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM
ids = {"vocab_size": 32, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
LlamaForCausalLM(LlamaConfig(**sizes, **ids)).to(torch.bfloat16).save_pretrained("base")
tokens = torch.randint(1, 32, (4, 9)).masked_fill(torch.arange(9) < torch.tensor([[0], [2], [5], [1]]), 0)
batch = {"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": tokens.masked_fill(tokens == 0, -100)}
batches = [batch] * 3
prompt = {"input_ids": tokens[:1], "attention_mask": batch["attention_mask"][:1]}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
@pytest.mark.parametrize("number", [0, 1, 2], ids=["our loop", "language model", "Trainer"])
def test_the_python_in_the_readme_runs(number, root, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 4, "the last, on weights, runs in tests/bench/commands/test_export.py"
    code = (WHAT_IT_NEEDS if number == 1 else "") + blocks[number]
    (tmp_path / "block.py").write_text(f"import warnings\nwarnings.simplefilter('error')\n{code}")
    if number:
        forked(tmp_path / "block.py", cwd=tmp_path)
    else:  # with the imports, as a reader does it
        environment = {"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "block.py"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / ("adapters" if number == 1 else "out")).rglob("*.safetensors"))


def test_the_commands_in_the_readme_are_understood(root):
    commands = re.findall(r"^python run_matrix\.py (--.*?)(?:\s+#.*)?$", (root / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command)
        assert make_request(make_parser().parse_args(arguments), arguments).plans


@pytest.mark.slow
def test_the_tables_in_the_readme_are_the_committed_sweeps(root):
    assert not update_tables(root / "README.md", write=False)


def test_the_bonus_tables_hold_the_whole_preset(root):
    text = (root / "README.md").read_text().partition("## Fed and updated otherwise")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.*?)` \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(named.text for named in parse_plans(PRESETS["bonus"].plans))


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


TIMES = {"ttt", "ttt_ratio", "speed", "speed_ratio"}
REPEATS = 3


def timed_tables(root):
    """Folders, with their setting, of every table of the README that shows times, and the words around it."""
    for section in re.split(r"^## ", (root / "README.md").read_text(), flags=re.MULTILINE):
        for asked in re.findall(r"<!-- table ([^\n]*?) -->", section):
            folder, *options = asked.split()
            given = dict(option.partition("=")[::2] for option in options)
            columns = [column.rpartition(":")[::2] for column in given["columns"].split(",")]
            for place in {other or Path(folder).name for other, name in columns if name in TIMES}:
                yield root / "results" / place, given.get("setting", ""), " ".join(section.split())


@pytest.mark.slow
def test_times_in_the_readme_are_of_three_undisturbed_runs_in_turns_or_it_says_what_else(root):
    found = list(timed_tables(root))
    assert len({folder for folder, _, _ in found}) >= 4
    for folder, setting, words in found:
        key, _, value = setting.partition(":")
        (comparison,) = [c for c in compare(load(folder)) if not setting or c.setting[key] == value][:1]
        assert comparison.disturbed.empty, f"{folder}: the same sweep with --require-idle runs these again"
        timed = comparison.finished.groupby("entry")["ttt_seconds"].count()
        if timed.min() < REPEATS:
            assert "one run each" in words, f"{folder}: {timed.idxmin()} has {timed.min()} timed runs"
            continue
        runs = comparison.runs.sort_values("created_at", kind="stable")
        in_turns = not (runs["entry"] == runs["entry"].shift()).any()
        assert in_turns or "side by side" in words, f"{folder}: repeats are not taken in turns"
