"""How every plan is optimised unless its paper needs otherwise: AdamW, one schedule, clipped gradients.

Weight decay 0.01, but not on biases and norms (anything with fewer than two dimensions). Linear warm-up over
6 % of the steps, then a cosine to zero. Without `total_steps` the rate stays constant after ten steps of
warm-up, since there is no end to aim for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

WEIGHT_DECAY = 0.01
WARMUP_FRACTION = 0.06
WARMUP_STEPS_WITHOUT_END = 10
MAX_NORM = 1.0


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make torch's AdamW, fused where the device has it and all parameters are real."""
    import torch

    parameters = [parameter for group in groups for parameter in group["params"]]
    has_it = {parameter.device.type for parameter in parameters} <= {"cpu", "cuda"}
    return torch.optim.AdamW(groups, fused=has_it and not any(map(torch.is_complex, parameters)))


def clip_grad_norm(parameters: Sequence[Tensor]) -> None:
    """Scale gradients down to a total norm of at most 1; does not synchronise."""
    import torch

    torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)


def default_lr_multiplier(step: int, total_steps: int | None) -> float:
    """Give the share of the peak rate for update number `step` (from 0)."""
    warmup = WARMUP_STEPS_WITHOUT_END if total_steps is None else max(1, round(WARMUP_FRACTION * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    if total_steps is None:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))
