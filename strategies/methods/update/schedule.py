"""schedule — how learning rates rise and fall over the training.

What: a linear warm-up over the share `warmup` of the steps, then one of four shapes: "cosine" and "linear" fall to
`floor` × the peak at the end, "constant" stays, "wsd" (warm-up, stable, decay) stays and falls linearly in the last
share `decay` of the steps after the warm-up. Every plan without this word has a 6 % warm-up and a cosine to zero.
Why it helps: large steps find the region, small ones at the end settle in it; most of the gain of a schedule comes
in its last part. "wsd" and "constant" let one stop or extend a run without having planned its length.
What it costs: nothing. When not to use it: to compare recipes: then all should have the same schedule.
Paper: Loshchilov and Hutter, SGDR, 2017, https://arxiv.org/abs/1608.03983 (cosine); Hu et al., MiniCPM, 2024,
https://arxiv.org/abs/2404.06395 (warm-up, stable, decay)

Without `total_steps` there is no end to aim for: ten steps of warm-up, then every shape is constant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from strategies.execution.optimizer import WARMUP_STEPS_WITHOUT_END
from strategies.options import Share
from strategies.protocol import SCHEDULE, Kind, Strategy


@final
@dataclass(frozen=True, kw_only=True)
class Schedule(Strategy):
    """Rates over the steps: `warmup`, then `shape` down to `floor` × the peak; `decay` is the falling part of "wsd"."""

    name: ClassVar[str] = "schedule"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({SCHEDULE})
    trial: ClassVar[Mapping[str, Any]] = {"floor": 0.5}

    shape: Literal["cosine", "linear", "constant", "wsd"] = "linear"
    warmup: Share = 0.06
    decay: Share = 0.2
    floor: Share = 0.0

    def lr_multiplier(self, step: int, total_steps: int | None) -> float:
        """Give the share of the peak for update number `step`, from 0."""
        warmup = WARMUP_STEPS_WITHOUT_END if total_steps is None else round(self.warmup * total_steps)
        if step < warmup:
            return (step + 1) / warmup
        if total_steps is None:
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        return self.floor + (1 - self.floor) * self._decayed(progress)

    def _decayed(self, progress: float) -> float:
        """Give the shape's value between 1 and 0 at `progress` between warm-up and end."""
        falling = max(self.decay, 1e-9)
        values = {
            "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
            "linear": 1 - progress,
            "constant": 1.0,
            "wsd": min(1.0, (1 - progress) / falling),
        }
        return values[self.shape]
