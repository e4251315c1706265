"""The strategy printed in CONTRIBUTING.md is real: it is executed, found through an entry point and trained."""

import re
import subprocess
import sys

PROGRAM = """
import torch
from strategies import catalogue, compose

assert "bitfit" in catalogue()
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
tuned = compose("bitfit(lr=1e-2)+amp(dtype='bf16')").apply(model, total_steps=5)
before = {name: p.detach().clone() for name, p in model.named_parameters()}
batch = {"x": torch.randn(16, 4), "y": torch.randint(0, 2, (16,))}
for _ in range(5):
    tuned.step(lambda m, b: torch.nn.functional.cross_entropy(m(b["x"]), b["y"]), batch)
print(sorted(name for name, p in model.named_parameters() if not torch.equal(p, before[name])))
"""


def test_the_printed_strategy_works_as_a_plug_in(root, tmp_path):
    (code,) = re.findall(r"```python\n(from dataclasses.*?)```", (root / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "bitfit_plugin.py").write_text('"""bitfit — biases only."""\n' + code)
    info = tmp_path / "bitfit_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bitfit-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tunematrix.strategies]\nbitfit = bitfit_plugin:BitFit\n")
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['0.bias', '2.bias', '2.weight']"
