"""Everything a person sees is something to use: whole outputs, line by line, against what the programme itself says."""

import importlib.util
import re
import subprocess
import sys

import pytest

RECIPES = "lora,qlora,qlora8,amp,pure_bf16"
RUN = r"\[\d/6\] (full|lora|qlora|qlora8|amp|pure_bf16) · seed 0: "
SAID = [
    r"Looking at the data, the model and 6 recipes first",
    r"Data: lines, 64 examples to train on\. Model: mlp\. Device: cpu\.",
    r"6 runs, each in a process of its own\. Records and logs: \S+",
    RUN + r"started(, ETA [\d a-z]+)?",
    RUN + r"step \d/2  loss [\d.]+  \d+ samples/s  ETA [\d a-z]+",
    RUN + r"accuracy [\d.]+ %  TTT [\d a-z]+  peak \d+ MiB",
    r"6 runs in [\d a-z]+, [\d.]+ % of it training",
    r"strategy +accuracy +F1 +precision +recall +TTT \(× full\) +peak memory \(× full\) +trainable +status *",
    r"─+",
    r"(full|lora|qlora|qlora8|amp|pure_bf16)( +[\d.]+){4} +[\d.]+ s \([\d.]+×\) +[\d.]+ MiB \([\d.]+×\) +[\d.k ]+ ok *",
    r"Scores in percent; F1, precision and recall are macro means over the whole evaluation set\.",
    r"Fixed cost of a run, process start to first step: median [\d.]+ s\.",
    r"One run each: small differences of time may be chance; --seeds 0,1,2 runs each recipe three times\.",
    r"TTT: first batch to last update, with compiling and the recipe's own set-up\. Peak: allocator, training\.",
    r"\S+/figures: \d+ figures, PNG, SVG and PDF",
    r"\S+/(comparisons\.csv|summary\.md)",
    r"CSVs, figures and summary: \S+",
    r"",
]
# torch's profiler cannot be told to keep these two from a log without losing its errors.
LOGGED = [r"USDT:.* SyncActivityProfilerHandler\.cpp:\d+\] profiler_(start|stop)"]
PLANNED = [r"run +strategy +plan .*", r"─+", r"[0-9a-f]{12} .* to run *"]
COUNTED = [
    r"part +parameters +FLOPs",
    r"(vision|text|fusion \(\w+\)|head|all) +[\d,]+ +[\d.]+ G",
    r"FLOPs of one forward pass: one picture, one question of \d+ word pieces",
    r"",
]


def output(root, *command):
    """Standard output and error of a command, as they would be on a screen. Fails unless it ends with status 0."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def foreign(text, patterns):
    return [line for line in text.splitlines() if not any(re.fullmatch(pattern, line) for pattern in patterns)]


@pytest.mark.slow
def test_a_sweep_says_only_what_a_person_can_use(root, tmp_path):
    assert importlib.util.find_spec("torchao"), "without it there is little to keep away: pip install '.[dev]'"
    task = "tests.bench.faulty_task:FaultyTask(items=64)"
    text = output(
        root, "run_matrix.py", "--task", task, "--strategies", RECIPES, "--max-steps", 2, "--device", "cpu",
        "--out", tmp_path,
    )  # fmt: skip
    assert foreign(text, SAID) == []
    assert f"{tmp_path}/figures: {len(list(tmp_path.glob('figures/*.png')))} figures, PNG, SVG and PDF" in text
    logs = [log.read_text() for log in tmp_path.glob("runs/*/log.txt")]
    assert len(logs) == 6
    assert [line for log in logs for line in foreign(log, LOGGED)] == []


@pytest.mark.slow
def test_the_planned_matrix_is_all_that_a_dry_run_says(root, tmp_path):
    assert foreign(output(root, "run_matrix.py", "--dry-run", "--out", str(tmp_path)), PLANNED) == []


@pytest.mark.slow
def test_a_command_of_the_model_says_only_its_own(root):
    assert foreign(output(root, "-m", "vqa_model.describe"), COUNTED) == []


LIBRARY = """
import logging, sys
before = {name: list(logging.getLogger(name).filters) for name in NAMES}
from torch import nn
from strategies import compose
compose("qlora").apply(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)), head="2")
assert "torchao" in sys.modules
assert before == {name: logging.getLogger(name).filters for name in NAMES}
logging.getLogger("torchao").warning("Failed to load /a/users/own.so")
"""


@pytest.mark.slow
def test_a_plan_in_a_script_says_nothing_and_leaves_the_loggers_as_they_were(root):
    names = "NAMES = ['torchao', 'torch.utils._pytree', 'bitsandbytes.backends.cpu.ops']"
    assert output(root, "-c", names + LIBRARY) == "Failed to load /a/users/own.so\n"
