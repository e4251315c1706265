"""The command that runs one run again, from its record or, without one, from its row."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final

from report.frames.units import cell

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TASK: Final = "vqa_model.task:VQATask"
CONTROL: Final = re.compile(r"(?:, )?control='[^']*'")


def sweep_command(words: list[str]) -> str:
    """The command that made the sweep, as typed."""
    script = words and words[0].endswith(".py")
    return shlex.join(["python", *([] if script else ["run_matrix.py"]), *words])


def run_command(row: Mapping[str, Any], spec: Mapping[str, Any], words: list[str]) -> tuple[str, str]:
    """Command of one run, and what there is to say about it."""
    if words and words[0].endswith(".py"):
        return sweep_command(words), "A script made this sweep; it runs the whole of it."
    if row["kind"] == "control":
        return sweep_command(words), "A control is not asked for by name: it runs beside any recipe of its task."
    task = str(spec.get("task_text") or row["task"])
    task = CONTROL.sub("", task).replace("(, ", "(").removesuffix("()")
    made = ["python", "run_matrix.py"]
    if task and task != DEFAULT_TASK:
        made += ["--task", task]
    made += ["--strategies", str(row["strategy"] or row["plan"])]
    flags = {"--seeds": row["seed"], "--batch-size": row["batch_size"], "--epochs": spec.get("epochs", row["epochs"])}
    flags["--max-steps"] = spec.get("max_steps")
    note = ""
    if row["kind"] == "tuning" or row["tuned_rates"]:
        flags["--lr"], note = row["lr"], "Its learning rate was tuned, so it is given."
        if not cell(row["lr"]):
            note = f"Its rate {cell(row['head_lr'])} of the new parts was tuned; only --tune sets it."
    for flag, value in flags.items():
        if value is not None and cell(value):
            made += [flag, cell(value)]
    made += ["--same-lr"] if row["kind"] == "baseline" and "--lr" in made else []
    made += ["--no-baseline"] if row["kind"] != "baseline" else []
    return shlex.join([*made, "--out", "results/again"]), note
