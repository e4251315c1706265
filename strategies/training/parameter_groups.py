"""The optimizer's parameter groups under a plan, and the learning rate of each in every update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.execution.optimizer import WEIGHT_DECAY, default_lr_multiplier
from strategies.language.rates import plan_lr_scale, plan_lrs, weights_members
from strategies.layout import is_within
from strategies.methods.weights.full import Full
from strategies.structure.beside.token_rows import row_parameters
from strategies.structure.beside.trained_whole import trained_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy


def parameter_groups(
    model: nn.Module, layout: Layout, members: Sequence[Strategy], lr: float | None, head_lr: float | None
) -> list[dict[str, Any]]:
    """Group what trains by name ("new" or "base"), rate and decay. `lr`, `head_lr` replace the plan's own rates.

    A parameter's rate is that of the weights member whose scope holds it; outside every scope it is fully
    trained and has the rate of `full`, and so have modules that a member trains whole beside its adapters.
    """
    plain = Full().lr
    head_rate = head_lr or plan_lrs(members).head_lr
    weights = weights_members(members)
    scoped = [
        *((_within(model, trained_whole(member, model, layout)), plain) for member in weights),
        *((row_parameters(member, model, layout), vars(member).get("lr", plain)) for member in weights),
        *((layout.parameter_names(model, m.scope_name()), vars(m).get("lr", plain)) for m in weights),
    ]
    groups: dict[tuple[str, float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        own = next((rate for owned, rate in scoped if name in owned), plain) * plan_lr_scale(members)
        part, rate = ("new", head_rate) if layout.is_new(name) else ("base", lr or own)
        decay = WEIGHT_DECAY if parameter.ndim > 1 else 0.0
        empty: dict[str, Any] = {"params": [], "lr": rate, "weight_decay": decay, "name": part}
        groups.setdefault((part, rate, decay), empty)["params"].append(parameter)
    return list(groups.values())


def _within(model: nn.Module, modules: tuple[str, ...]) -> frozenset[str]:
    return frozenset(name for name, _ in model.named_parameters() if is_within(name, modules))


def plan_lr_multiplier(members: Sequence[Strategy], step: int, total_steps: int | None) -> float:
    """Give the share of the peak rate for update number `step` (from 0), as the plan's member for it says."""
    multipliers = (member.lr_multiplier(step, total_steps) for member in members)
    return next((share for share in multipliers if share is not None), default_lr_multiplier(step, total_steps))


def set_rates(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    """Set the learning rate of each group; some optimizers keep it in a tensor."""
    import torch

    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
