"""What the command line asks for: the recipes of a sweep, how they are trained, and where results go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.sweep.matrix import TrainingOptions
from bench.sweep.time_limit import TimeLimit
from strategies import NamedPlan

MAX_SILENCE_SECONDS: Final = 3600.0  # updates and batches of an evaluation tell every half minute that they go on


@dataclass(frozen=True, kw_only=True)
class Request:
    """A sweep as asked for on the command line."""

    plans: Sequence[NamedPlan]
    training: TrainingOptions
    task: str
    overrides: Mapping[str, Any]
    out: Path
    device: str = ""
    baseline: bool = True
    force: bool = False
    dry_run: bool = False
    timeout_seconds: float | None = None
    max_silence_seconds: float = MAX_SILENCE_SECONDS
    time_limit: TimeLimit | None = None
    memory_snapshot: bool = False
    tune: int | None = None
    require_idle: bool = False
    command: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What every run of a sweep shares: its name, extra columns, and the limits it runs under."""

    sweep: str
    columns: dict[str, Any]
    inherited: tuple[int, ...] = ()
    timeout_seconds: float | None = None
    max_silence_seconds: float = MAX_SILENCE_SECONDS
    deadline: float | None = None  # seconds since the epoch
