"""How every plan is optimised unless its paper needs otherwise: AdamW, two rates, one schedule.

Weight decay 0.01, but not on biases and norms (anything with fewer than two dimensions). Linear warm-up over
6 % of the steps, then a cosine to zero. Without `total_steps` the rate stays constant after ten steps of
warm-up, since there is no end to aim for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.protocol import EVERYTHING, FROZEN, WEIGHTS, Strategy, defaults
from strategies.weights.full import Full

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor, nn

    from strategies.layout import Layout

WEIGHT_DECAY = 0.01
WARMUP_SHARE = 0.06
WARMUP_STEPS_WITHOUT_END = 10
MAX_NORM = 1.0


@dataclass(frozen=True)
class Rates:
    """Peak learning rates: `lr` for pretrained weights and adapters (`None` = none train), `head_lr` for new parts."""

    lr: float | None
    head_lr: float


def weights_members(members: Sequence[Strategy]) -> list[Strategy]:
    """Give the members that decide which weights train; `full` if there is none."""
    return [member for member in members if WEIGHTS in member.slots] or [Full()]


def plan_rates(members: Sequence[Strategy]) -> Rates:
    """Give the rates of the plan's first weights member that trains something, and its head's rate."""
    weights = weights_members(members)
    trained = [rate for rate in (_own_rate(member) for member in weights) if rate is not None]
    everywhere = any(member.where() in {None, EVERYTHING} for member in weights)
    lr = trained[0] if trained else None if everywhere else Full().lr
    scale = rate_scale(members)
    return Rates(lr=lr and lr * scale, head_lr=head_rates(weights)[0] * scale)


def rate_scale(members: Sequence[Strategy]) -> float:
    """Give what the members' `lr_scale` multiply to: other optimizers want other rates than AdamW."""
    return math.prod(float(vars(member).get("lr_scale", 1.0)) for member in members)


def head_rates(weights: Sequence[Strategy]) -> list[float]:
    """Give the head's rate as set by the members: those who differ from their default, else the default."""
    rates = [(float(vars(member)["head_lr"]), float(defaults(type(member))["head_lr"])) for member in weights]
    return list(dict.fromkeys(rate for rate, default in rates if rate != default)) or [rates[0][0]]


def _own_rate(member: Strategy) -> float | None:
    """Give the rate for what trains in the member's scope; `None` when nothing does."""
    from_options = vars(member)
    return None if _trains_nothing(member) else float(from_options["lr"])


def _trains_nothing(member: Strategy) -> bool:
    return FROZEN in member.capabilities()


def parameter_groups(
    model: nn.Module, layout: Layout, members: Sequence[Strategy], lr: float | None, head_lr: float | None
) -> list[dict[str, Any]]:
    """Group what trains by name ("new" or "base"), rate and decay. `lr`, `head_lr` replace the plan's own rates.

    A parameter's rate is that of the weights member whose scope holds it; outside every scope it is fully
    trained and has the rate of `full`.
    """
    plain = Full().lr
    head_rate = head_lr or plan_rates(members).head_lr
    scoped = [
        (layout.owned(model, member.where()), vars(member).get("lr", plain)) for member in weights_members(members)
    ]
    groups: dict[tuple[str, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = next((rate for owned, rate in scoped if name in owned), plain) * rate_scale(members)
        part, rate = ("new", head_rate) if layout.is_new(name) else ("base", lr or own)
        decay = WEIGHT_DECAY if parameter.ndim > 1 else 0.0
        empty: dict[str, Any] = {"params": [], "lr": rate, "weight_decay": decay, "name": part}
        groups.setdefault((part, rate, decay), empty)["params"].append(parameter)
    return list(groups.values())


def adamw(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make torch's AdamW, fused where the device has it."""
    import torch

    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, fused=devices <= {"cpu", "cuda"})


def limit_norm(parameters: Sequence[Tensor]) -> None:
    """Scale gradients down to a total norm of at most 1; does not synchronise."""
    import torch

    torch.nn.utils.clip_grad_norm_(parameters, MAX_NORM)


def rate_share(members: Sequence[Strategy], step: int, total_steps: int | None) -> float:
    """Give the share of the peak rate for update number `step` (from 0), as the plan's member for it says."""
    told = (member.rate_share(step, total_steps) for member in members)
    return next((share for share in told if share is not None), multiplier(step, total_steps))


def multiplier(step: int, total_steps: int | None) -> float:
    """Give the share of the peak rate for update number `step` (from 0)."""
    warmup = WARMUP_STEPS_WITHOUT_END if total_steps is None else max(1, round(WARMUP_SHARE * total_steps))
    if step < warmup:
        return (step + 1) / warmup
    if total_steps is None:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    return 0.5 * (1 + math.cos(math.pi * progress))
