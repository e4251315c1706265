"""What the README shows is executed: its Python as it stands, its commands as far as parsing them."""

import re
import shlex
import subprocess
import sys

from bench.arguments import make_parser
from bench.cli import make_request


def test_the_python_in_the_readme_runs(root, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
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
    assert (tmp_path / "out" / "plan.json").exists()


def test_the_commands_in_the_readme_are_understood(root):
    commands = re.findall(r"^python run_matrix\.py (--.*?)(?:\s+#.*)?$", (root / "README.md").read_text(), re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        arguments = shlex.split(command)
        assert make_request(make_parser().parse_args(arguments), arguments).plans
