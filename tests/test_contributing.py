"""The strategy printed in CONTRIBUTING.md is real: added as the page says, and as somebody else's package."""

import re
import shutil
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from strategies import catalogue, compose
from transformers import BertConfig, BertForSequenceClassification

assert "attention_only" in catalogue()
sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 20}
model = BertForSequenceClassification(BertConfig(**sizes))
tuned = compose("attention_only(lr=1e-2)+amp(dtype='bf16')").apply(model, total_steps=3)
before = {name: p.detach().clone() for name, p in model.named_parameters()}
batch = {"x": torch.randint(0, 20, (8, 5)), "y": torch.randint(0, 2, (8,))}
for _ in range(3):
    tuned.step(lambda m, b: m(input_ids=b["x"], labels=b["y"]).loss, batch)
moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
print(sorted({name.split(".")[-2] for name in moved}))
"""
MOVED = "['classifier', 'dense', 'key', 'query', 'value']"


@pytest.fixture
def printed(root):
    """Give the file, the catalogue's line and the table's line as printed."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "CONTRIBUTING.md").read_text(), re.DOTALL)
    file, lines = blocks
    return file, *[line.rpartition("  #")[0] for line in lines.splitlines()]


def test_it_is_short(printed):
    code = printed[0].partition('"""')[2].partition('"""')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 34


@pytest.mark.slow
def test_it_works_as_a_plug_in(printed, root, tmp_path):
    (tmp_path / "attention_plugin.py").write_text(printed[0])
    info = tmp_path / "attention_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: attention-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunematrix.strategies]\nattention_only = attention_plugin:AttentionOnly\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == MOVED


@pytest.mark.slow
def test_one_file_and_two_lines_add_it(printed, root, tmp_path):
    """Do what the page says in a copy, and run the conformance table on it."""
    file, entry, row = printed
    for folder in ("bench", "strategies", "tests/strategies"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", "tests/scripts.py"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "strategies/methods/weights/attention_only.py").write_text(file)
    for path, table, line in (
        ("strategies/language/catalogue.py", "BUILT_IN: dict[str, str] = {\n", entry),
        ("tests/strategies/test_conformance.py", "TABLE = {\n", row),
    ):
        text = (tmp_path / path).read_text()
        assert text.count(table) == 1
        (tmp_path / path).write_text(text.replace(table, f"{table}{line}\n"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "attention_only or in_the_table"]
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*command, "tests/strategies/test_conformance.py"],
        env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "9 passed" in done.stdout
