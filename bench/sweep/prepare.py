"""What must be known before anything runs, found in a child process so that the sweep itself never loads torch.

`python -m bench.sweep.prepare REQUEST ANSWER` loads the task, lets it check and decode its data, fingerprints data and
model, and asks every plan what stands in its way on this device and this model.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.forecast.forecast import Forecaster, predict_all
from bench.forecast.gpus import has_kernels, match_gpu
from bench.processes.lifetime import end_as
from bench.records.disturbance import MIN_GPU
from bench.records.json_files import read_json, write_json
from bench.task import Task, changed_options, identity_options, load_task, task_path, task_text
from bench.worker.sensors import Sensors
from strategies import baseline, compose
from strategies.quiet import quiet


def choose_device(requested: str) -> str:
    """The device type to run on: as asked, else CUDA where there is one."""
    requested = requested or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(requested)
    except RuntimeError as error:
        raise ValueError(f"--device {requested}: not a device torch knows; use cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {requested}: torch {torch.__version__} finds no CUDA GPU here; use --device cpu")
    if device.type not in {"cpu", "cuda"}:
        raise ValueError(f"--device {requested}: runs are measured on cpu and cuda only")
    if device.type == "cuda":
        check_kernels(device)
    return requested


def refuse_if_gpu_is_busy(device: str) -> None:
    """ValueError when others use as much of the GPU as would mark a run as disturbed."""
    share = Sensors(torch.device(device)).other_share
    if share is not None and share >= MIN_GPU:
        raise ValueError(f"--require-idle: others use {100 * share:.0f} % of the GPU; wait, or leave the option out")


def check_kernels(device: torch.device) -> None:
    """ValueError, before anything runs, for a GPU that this torch was not compiled for."""
    capability, compiled = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not has_kernels(capability, compiled):
        name = f"{torch.cuda.get_device_name(device)} (sm_{capability[0]}{capability[1]})"
        raise ValueError(
            f"{name}: torch {torch.__version__} has no kernels for it, only {', '.join(compiled)}; choose another GPU "
            "(on Kaggle: GPU T4 x2), or --device cpu"
        )


def describe_task(task: Task) -> dict[str, Any]:
    """What a run's specification needs of its task."""
    return {
        "task": task_path(task), "task_text": task_text(task), "task_options": identity_options(task),
        "data": task.data_fingerprint(), "model": task.model_fingerprint(),
        "dataset": task.dataset_name, "model_name": task.model_name,
        "changed": ", ".join(f"{name}={value}" for name, value in changed_options(task).items()),
        "epochs": task.default_epochs, "batch_size": task.default_batch_size,
    }  # fmt: skip


def prepare_sweep(request: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare the task and look at every plan; ValueError when data, model or device cannot be used."""
    device = choose_device(request["device"])
    if request["require_idle"]:
        refuse_if_gpu_is_busy(device)
    task = load_task(request["task"], request["overrides"])
    started = time.perf_counter()
    task.prepare()
    cache_seconds = time.perf_counter() - started
    model, items = task.build_model(), task.train_set()
    first = items[0] if len(items) else None
    problems = {
        plan: [dataclasses.asdict(problem) for problem in compose(plan).problems(device, model, item=first)]
        for plan in request["plans"]
    }
    controls: dict[str, Task] = getattr(task, "controls", dict)()
    forecaster = Forecaster(task, device, request["epochs"], request["max_steps"])
    can_run = [plan for plan in request["plans"] if not problems[plan]] if request["predict"] else []
    size = request["batch_size"] or task.default_batch_size
    predicted = predict_all(forecaster, [str(baseline()), *can_run] if can_run else [], size)
    plain = predicted.get(str(baseline()))
    return {
        "predicted_peak_bytes": {plan: found.peak_bytes + workspace_bytes(device) for plan, found in predicted.items()},
        "model_flops_per_sample": plain.flops / size if plain else None,
        "device": device, "cache_seconds": cache_seconds, "problems": problems, "main": describe_task(task),
        "train_samples": len(items), "tune_samples": len(task.tune_set()),
        "controls": {name: describe_task(control) for name, control in controls.items()},
    }  # fmt: skip


def workspace_bytes(device: str) -> int:
    """What cuBLAS will keep in the allocator of this GPU, where that is known."""
    gpu = match_gpu(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None
    return gpu.workspace_bytes if gpu else 0


def write_sidecars(request: Mapping[str, Any], folder: Path) -> None:
    """Files the report reads besides the CSVs: the model, a few examples, the chosen images."""
    task = load_task(request["task"], request["overrides"])
    if describe := getattr(task, "describe", None):
        write_json(folder / "model.json", describe())
    if chosen := getattr(task, "chosen_images", None):
        write_json(folder / "chosen_images.json", chosen())
    if examples := getattr(task, "examples", None):
        listed = []
        (folder / "examples").mkdir(exist_ok=True)
        for example in examples(6):
            name = f"{example['id']}.png"
            example["image"].save(folder / "examples" / name)
            listed.append({**{key: value for key, value in example.items() if key != "image"}, "image": name})
        write_json(folder / "examples" / "examples.json", listed)


@quiet()
def main(arguments: Sequence[str]) -> int:
    """Answer a request file; a problem with the user's input is answered in one line, status 2."""
    request_file, answer_file = map(Path, arguments)
    request = read_json(request_file)
    try:
        found = prepare_sweep(request)
        if request["side_files"]:
            write_sidecars(request, Path(request["side_files"]))
    except (ValueError, OSError) as error:
        write_json(answer_file, {"error": str(error)})
        return 2
    write_json(answer_file, found)
    return 0


if __name__ == "__main__":
    end_as(main)
