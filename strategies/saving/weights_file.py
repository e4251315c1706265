"""Saving what was tuned: one safetensors file with what trained and the new parts, and the plan as JSON.

The pretrained weights are not saved; `strategies.load` takes a freshly built base model, applies the plan to it
and puts the saved tensors back. That works for every strategy, since a plan rebuilds the same structure. The plan
is kept with every option spelt out (`members`), so that a default which changes later changes no saved model. The
manifest has the hash of both files, and of each tensor of the base that they lack.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.saving.base_hashes import Hash, to_json
from strategies.saving.manifest import installed_versions, save_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

WEIGHTS_FILE = "tuned.safetensors"
PLAN_FILE = "plan.json"
BASE = "base_sha256"  # in the manifest: the hashes of what stays with the base
FORMAT = 3
READABLE_FORMATS = (2, 3)  # in 2 `head` is one name, in 3 it is a list
REQUIRED_FACTS = {"members": list, "head": list, "seed": int}


def write(folder: Path, state: dict[str, Tensor], base: Mapping[str, Hash], **facts: Any) -> int:
    """Write tensors and facts, and a manifest of the two files with the hashes of the base; give the files' bytes."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / WEIGHTS_FILE)
    (folder / PLAN_FILE).write_text(json.dumps({"format": FORMAT, **facts}, indent=2) + "\n", encoding="utf-8")
    paths = [folder / name for name in (WEIGHTS_FILE, PLAN_FILE)]
    save_manifest(folder, paths, {"plan": facts["plan"], "packages": installed_versions(), BASE: to_json(base)})
    return sum(path.stat().st_size for path in paths)


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the plan's file; `PlanError` when the folder is not one of ours."""
    path = Path(folder) / PLAN_FILE
    if not path.is_file():
        raise PlanError(f"{folder} holds no {PLAN_FILE}: it was not written by Tuned.save")
    try:
        facts: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise PlanError(f"{path} is no JSON: {problem}") from None
    if not isinstance(facts, dict):
        raise PlanError(f"{path} should hold an object, not a {type(facts).__name__}")
    if facts.get("format") not in READABLE_FORMATS:
        readable = " and ".join(map(str, READABLE_FORMATS))
        raise PlanError(f"{path} has format {facts.get('format')!r}, this version reads {readable}")
    if isinstance(facts.get("head"), str):
        facts["head"] = [facts["head"]]
    wrong = [key for key, kind in REQUIRED_FACTS.items() if not isinstance(facts.get(key), kind)]
    if wrong or not all(isinstance(member, dict) and "name" in member for member in facts["members"]):
        raise PlanError(f"{path} is damaged: look at {', '.join(wrong) or 'members'}")
    return facts


def load_weights(folder: Path, model: nn.Module, expected: dict[str, Tensor]) -> None:
    """Copy the saved tensors into `model`, whose plan has been applied; any difference is an error."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise PlanError(f"{folder} holds no {WEIGHTS_FILE}: its tensors are lost or were not copied")
    try:
        saved = load_file(path)
    except SafetensorError as problem:
        raise PlanError(f"{path} cannot be read: {problem}") from None
    differing = sorted(set(saved) ^ set(expected))
    if differing:
        raise PlanError(f"{folder} was saved from another model: {len(differing)} tensors differ, {differing[0]} first")
    with torch.no_grad():
        for name, tensor in saved.items():
            if expected[name].shape != tensor.shape:
                raise PlanError(
                    f"{folder}: {name} has shape {tuple(tensor.shape)}, "
                    f"{type(model).__name__} has {tuple(expected[name].shape)}"
                )
            expected[name].copy_(tensor)
