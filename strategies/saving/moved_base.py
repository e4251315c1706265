"""Values of the base that a model's own code changes while others train: a teacher that follows its student, say.

They train by no optimizer, so a plan takes them for the base, which is not saved. What was frozen before the plan came
is hashed again when it is saved; of the rest only what was written to since. What has moved is saved whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.saving.base_hashes import Hash, hash_base

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn


class Noted(NamedTuple):
    """What is known of a parameter of the base once a plan is applied: its name before, and the state of its tensor."""

    base: str
    written: tuple[int, int]
    hash: Hash | None


def note_base(model: nn.Module, before: Any, resting: Collection[str], saved: Collection[str]) -> dict[str, Noted]:
    """Note the parameters that are not `saved`; `before`: parameter → its name, `resting`: names frozen by the user."""
    kept = {
        name: (before[parameter], _written(parameter))
        for name, parameter in model.named_parameters()
        if parameter in before and name not in saved and not parameter.is_meta
    }
    hashes = hash_base(model, {name for name, (base, _) in kept.items() if base in resting})
    return {name: Noted(base, written, hashes.get(name)) for name, (base, written) in kept.items()}


def keep_moved(tuned: Any) -> list[str]:
    """Count what of the base has moved among what a `Tuned` saves, no longer as base; give the names of all such."""
    moved = moved_names(tuned.model, tuned.noted, tuned.base)
    gone = {tuned.noted[name].base for name in moved}
    tuned.saved_names |= moved
    tuned.base = {name: known for name, known in tuned.base.items() if name not in gone}
    return sorted(tuned.noted.keys() & tuned.saved_names)


def moved_names(model: nn.Module, noted: Mapping[str, Noted], base: Mapping[str, Hash]) -> set[str]:
    """Name what has other values than it was noted with; another number type since is none of the model's doing."""
    there = dict(model.named_parameters())
    suspects = {n for n, own in noted.items() if n in there and (own.hash or own.written != _written(there[n]))}
    now = hash_base(model, suspects)
    known = {name: noted[name].hash or base.get(noted[name].base, now[name]) for name in suspects}
    return {name for name in suspects if now[name].dtype == known[name].dtype and now[name] != known[name]}


def _written(parameter: nn.Parameter) -> tuple[int, int]:
    """Give what changes when a tensor is written to, or another takes its place."""
    return parameter._version, parameter.data_ptr()  # noqa: SLF001 - torch's only count of writes
