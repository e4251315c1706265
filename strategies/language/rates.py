"""Which learning rates a plan has: one for pretrained weights and adapters, one for what is new, as its members say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from strategies.layout import EVERYTHING
from strategies.methods.weights.full import Full
from strategies.protocol import FROZEN, WEIGHTS, Strategy, defaults


@dataclass(frozen=True)
class LearningRates:
    """Peak learning rates: `lr` for pretrained weights and adapters (`None` = none train), `head_lr` for new parts."""

    lr: float | None
    head_lr: float


def weights_members(members: Sequence[Strategy]) -> list[Strategy]:
    """Give the members that decide which weights train; `full` if there is none."""
    return [member for member in members if WEIGHTS in member.slots] or [Full()]


def trained_scopes(members: Sequence[Strategy]) -> list[str | None]:
    """Give the scopes of the members that decide which weights train and leave some to train."""
    return [member.scope_name() for member in weights_members(members) if not _trains_nothing(member)]


def plan_lrs(members: Sequence[Strategy]) -> LearningRates:
    """Give the rates of the plan's first weights member that trains something, and its head's rate."""
    weights = weights_members(members)
    trained = [rate for rate in (_member_lr(member) for member in weights) if rate is not None]
    everywhere = any(member.scope_name() in {None, EVERYTHING} for member in weights)
    lr = trained[0] if trained else None if everywhere else Full().lr
    scale = plan_lr_scale(members)
    return LearningRates(lr=lr and lr * scale, head_lr=head_lrs(weights)[0] * scale)


def plan_lr_scale(members: Sequence[Strategy]) -> float:
    """Give what the members' `lr_scale` multiply to: other optimizers want other rates than AdamW."""
    return math.prod(float(vars(member).get("lr_scale", 1.0)) for member in members)


def head_lrs(weights: Sequence[Strategy]) -> list[float]:
    """Give the head's rate as set by the members: those who differ from their default, else the default."""
    rates = [(float(vars(member)["head_lr"]), float(defaults(type(member))["head_lr"])) for member in weights]
    return list(dict.fromkeys(rate for rate, default in rates if rate != default)) or [rates[0][0]]


def _member_lr(member: Strategy) -> float | None:
    """Give the rate for what trains in the member's scope; `None` when nothing does."""
    from_options = vars(member)
    return None if _trains_nothing(member) else float(from_options["lr"])


def _trains_nothing(member: Strategy) -> bool:
    return FROZEN in member.capabilities()
