"""Checkpoints: everything that the next update depends on, in one file, put in place in one move.

What a plan rebuilds (structure, the pretrained base, quantised or not) is not in it: apply the same plan to the same
model, then `load_checkpoint`. The optimizer's state is put back value by value, not by its `load_state_dict`, which
casts to the weights' number type and so would not go on to the bit. The order of the data is the caller's.

    save_checkpoint(tuned, file, epoch=2)
    epoch = load_checkpoint(tuned, file)["epoch"]      # random streams included
"""

from __future__ import annotations

import os
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.random_state import random_state, restore_random
from strategies.saving.base_hashes import compare, from_json, to_json
from strategies.saving.moved_base import keep_moved

if TYPE_CHECKING:
    from pathlib import Path

    from strategies.language.plan import Plan
    from strategies.training.tuned import Tuned

FORMAT = 1


def not_resumable(plan: Plan) -> list[str]:
    """Name the members of a plan whose state no checkpoint holds exactly; none: `save_checkpoint` works."""
    return [member.name for member in plan.members if not member.resumable]


def checkpoint_bytes(tuned: Tuned) -> int:
    """Give about what a checkpoint takes on disk, without a look at the device."""
    weights: int = sum(tensor.nbytes for tensor in tuned.full_state().values())
    moments: int = 2 * sum(p.nbytes for group in tuned.optimizer.param_groups for p in group["params"])
    return weights + moments


def save_checkpoint(tuned: Tuned, file: Path, **others: Any) -> int:
    """Write all that the next update depends on, and `others` (numbers, text, tensors); give the file's size in bytes.

    Call it between updates. `file` holds the checkpoint before until the new one is complete (atomic rename).
    `PlanError` for a plan with a member that cannot be resumed exactly (`not_resumable`).
    """
    import torch

    if names := not_resumable(tuned.plan):
        raise PlanError(f"{names[0]}: what it keeps cannot be restored exactly; start the training again")
    optimizer, state = tuned.optimizer, tuned.state
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    whole = {
        "format": FORMAT, "members": str(tuned.plan), "step": state.step, "moved": keep_moved(tuned),
        "model": tuned.full_state(),
        "groups": [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups],
        "optimizer": {n: dict(optimizer.state[p]) for n, p in enumerate(parameters) if p in optimizer.state},
        "engine": tuned.engine.state_dict(), "kept": [member.state_dict(state) for member in tuned.plan.members],
        "base": to_json(tuned.base),
        "checked": tuned.losses.check.state_dict(), "random": random_state(tuned.device), "others": others,
    }  # fmt: skip
    part = file.with_name(f".{file.name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with part.open("wb") as out:
        torch.save(whole, out)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)
    return file.stat().st_size


def load_checkpoint(tuned: Tuned, file: Path, *, random: bool = True) -> dict[str, Any]:
    """Resume a plan that was just applied to a fresh base from a checkpoint, bitwise identical to no pause.

    random: put the random streams (Python's, numpy's, torch's, CUDA's) back to where they were, so that dropout goes on
    as without a pause. What draws between this and the next update (a `DataLoader` without a generator of its own, say)
    moves them on: call `restore_random(loaded["random"], tuned.device)` after it.
    Gives `others` of `save_checkpoint`, and under "random" what `restore_random` takes.
    `PlanError` when the file is damaged, or of another format, plan, model or base; `FileNotFoundError` without a file.
    """
    import torch

    try:
        whole: dict[str, Any] = torch.load(file, weights_only=True)  # each tensor where it was
    except (RuntimeError, EOFError, KeyError, UnpicklingError) as problem:
        raise PlanError(f"{file} cannot be read: {str(problem).splitlines()[0]}") from None
    if whole["format"] != FORMAT or whole["members"] != str(tuned.plan):
        raise PlanError(f"{file} is a checkpoint of {whole['members']}, not of {tuned.plan}")
    tuned.saved_names |= tuned.noted.keys() & whole.get("moved", ())
    optimizer, state, own = tuned.optimizer, tuned.state, tuned.full_state()
    if set(own) != set(whole["model"]):
        raise PlanError(f"{file} was written for another model")
    compare(file, from_json(whole.get("base", {})), tuned.base)
    with torch.no_grad():
        for name, tensor in whole["model"].items():
            own[name].copy_(tensor)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for group, saved in zip(optimizer.param_groups, whole["groups"], strict=True):
        group.update(saved)
    for number, values in whole["optimizer"].items():
        optimizer.state[parameters[number]] = values
    state.step = whole["step"]
    tuned.losses.check.load_state_dict(whole["checked"])
    tuned.engine.load_state_dict(whole["engine"])
    for member, saved in zip(tuned.plan.members, whole["kept"], strict=True):
        member.load_state_dict(state, saved)
    if random:
        restore_random(whole["random"], tuned.device)
    others: dict[str, Any] = whole["others"]
    return others | {"random": whole["random"]}
