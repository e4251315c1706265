"""RunSpec: everything that decides a run's result, and the `run_id` hashed from it.

Two teammates who ask for the same thing get the same id, so their results merge; a changed default is a new
run, because every field of every strategy is hashed with its default filled in. Paths, versions, git state and
time limits are carried beside the identity, not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from bench.records.json_files import digest
from bench.records.record import SCHEMA_VERSION

Kind = Literal["run", "baseline", "control", "tuning"]


def excluded_from_id(default: Any) -> Any:
    """Declare a field that travels with the spec but is not part of the run's identity."""
    return field(default=default, metadata={"identity": False})


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run. Fields made with `excluded_from_id` do not enter `run_id`.

    members: the plan's strategies with every field filled in (`Plan.canonical()`).
    task_options: the task's options without those that only say where data lies.
    data, model: fingerprints of contents.
    """

    members: Sequence[Mapping[str, Any]]
    task: str
    task_options: Mapping[str, Any]
    data: str
    model: str
    seed: int
    batch_size: int
    epochs: float | None
    max_steps: int | None
    lr: float | None
    head_lr: float
    device: str
    strategy: str = excluded_from_id("full")
    plan: str = excluded_from_id("full")
    kind: Kind = excluded_from_id("run")
    task_text: str = excluded_from_id("")
    dataset: str = excluded_from_id("")
    model_name: str = excluded_from_id("")
    setting: str = excluded_from_id("")
    refusal: Mapping[str, str] | None = excluded_from_id(None)
    predicted_peak_bytes: int | None = excluded_from_id(None)
    model_flops_per_sample: float | None = excluded_from_id(None)
    memory_snapshot: bool = excluded_from_id(default=False)
    tuning: Mapping[str, Any] | None = excluded_from_id(None)

    def identity(self) -> dict[str, Any]:
        """The JSON-able value that is hashed."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata.get("identity", True)}
        return {"schema": SCHEMA_VERSION, **parts}

    @property
    def run_id(self) -> str:
        """12 hex digits; equal exactly when the runs are the same."""
        return digest(self.identity())

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` is its inverse."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RunSpec:
        """Read back `to_json`; ValueError names unknown or missing fields (an older suite's spec, say)."""
        known = {f.name for f in fields(cls)}
        required = {f.name for f in fields(cls) if f.metadata.get("identity", True)}
        if mismatched := (set(value) - known) | (required - set(value)):
            raise ValueError(f"not a run specification of this version: fields {sorted(mismatched)} differ")
        return cls(**value)
