"""The `export` command, in a child process: the model of a finished run as a folder to use and to hand in.

`python -m bench.commands.write_model REQUEST` builds the run's task and base model again, puts the run's weights into
it, merges adapters into plain float weights, and has the task write the folder. Data and towers are found where the run
found them, or where the request says; their fingerprints must be those of the run.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from torch import nn

from bench.processes.lifetime import end_as
from bench.records.environment import package_versions
from bench.records.json_files import read_json
from bench.records.manifest import check_manifest, write_manifest
from bench.records.results_folder import InputError, run_folder
from bench.records.run_records import read_run
from bench.records.spec import RunSpec
from bench.task import Task, load_task
from bench.worker.loop import seed_everything
from strategies import load, load_plain, save_peft
from strategies.quiet import quiet

WEIGHTS_FILE: Final = "model.safetensors"
ROW_FACTS: Final = (
    "strategy", "plan", "seed", "dataset", "model", "device", "gpu_name", "run_id", "epochs", "steps", "batch_size",
    "lr", "head_lr", "train_samples", "trainable_parameters", "ttt_seconds", "peak_allocated_bytes",
)  # fmt: skip


def run_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a model card or manifest may say about a run; what was not measured is left out."""
    row = record["row"]
    known = {name: row[name] for name in ROW_FACTS if name in row}
    return {**known, "metrics": record["metrics"].get("eval", {}), "packages": package_versions()}


def load_run_task(spec: RunSpec, overrides: Mapping[str, Any]) -> Task:
    """The run's task; InputError when data or towers are others than the run's."""
    task = load_task(spec.task_text, overrides)
    for what, actual, expected in (
        ("data", task.data_fingerprint(), spec.data),
        ("model", task.model_fingerprint(), spec.model),
    ):
        if actual != expected:
            raise InputError(
                f"the {what} is not what the run had (fingerprint {actual}, was {expected}); name its place"
            )
    return task


def export(request: Mapping[str, Any]) -> str:
    """Write the folder; gives a line about what was merged."""
    folder, out = run_folder(Path(request["source"]), request["run_id"]), Path(request["out"])
    check_manifest(folder / "weights")
    record = read_run(folder)
    spec = RunSpec.from_json(record["spec"])
    task = load_run_task(spec, request["overrides"])
    facts = run_facts(record)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        export_folder = draft / out.name
        result = EXPORTERS[request["format"]](task, spec, folder / "weights", export_folder, facts)
        write_manifest(export_folder, {**facts, "result": result, "data": spec.data, "base": spec.model})
        if out.exists():
            out.rename(draft / "replaced")
        export_folder.rename(out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return result


def build_base_model(task: Task, spec: RunSpec) -> nn.Module:
    """The base model as the run began with it."""
    seed_everything(spec.seed)
    return task.build_model()


def export_merged(task: Task, spec: RunSpec, weights: Path, folder: Path, facts: Mapping[str, Any]) -> str:
    """Write the whole model with adapters merged, in the task's own form where it has one."""
    model = build_base_model(task, spec)
    result = load_plain(weights, model)
    if save := getattr(task, "save_model", None):
        save(model.eval(), folder, facts)
    else:
        save_state(model, folder)
    return str(result)


def export_peft(task: Task, spec: RunSpec, weights: Path, folder: Path, facts: Mapping[str, Any]) -> str:
    """Write the adapters and what trained beside them in PEFT's format."""
    del facts
    max_error = save_peft(load(weights, build_base_model(task, spec)), build_base_model(task, spec), folder)
    return (
        "adapters in PEFT's format, for the base model of this run's size and towers; read back by PEFT, "
        f"the output of an adapted layer is off by {max_error:.0e} at most"
    )


EXPORTERS: Final = {"merged": export_merged, "peft": export_peft}


def save_state(model: Any, folder: Path) -> None:
    """Write a model's tensors, for a task that has no form of its own."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True)
    save_model(model, str(folder / WEIGHTS_FILE))


@quiet()
def main(arguments: Sequence[str]) -> int:
    """Export as the request says; 2 and one line for what cannot be exported."""
    request = read_json(Path(arguments[0]))
    try:
        result = export(request)
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: export {request['run_id']}: {error}", file=sys.stderr)
        return 2
    print(f"{request['strategy']} (run {request['run_id']}): {result}\n{request['out']}")
    return 0


if __name__ == "__main__":
    end_as(main)
