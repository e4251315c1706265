"""A plan: the strategies of one run, sorted and checked; data, without a model.

Named recipes are expanded first, so an alias and its expansion are the same plan; members are sorted, so the order
typed never matters. `full` with defaults is the empty sum and leaves no trace.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import Self

from strategies.errors import PlanError
from strategies.language.checks import Problem, find_problems
from strategies.language.rates import LearningRates, plan_lrs, weights_members
from strategies.methods.weights.full import Full
from strategies.options import ADDED, following
from strategies.protocol import Strategy, defaults
from strategies.structure.find_layout import find_layout

if TYPE_CHECKING:
    import torch
    from torch import nn

    from strategies.layout import HeadChoice

AnyPlan = TypeVar("AnyPlan", bound="Plan")


@dataclass(frozen=True, eq=False)
class Plan:
    """Sorted members; make one with `compose` or `parse_plans`. Plans of the same members are equal.

    `str(plan)` is its label: members joined by +, with options that differ from the defaults.
    """

    members: tuple[Strategy, ...]

    @classmethod
    def of(cls, strategies: Sequence[Strategy]) -> Self:
        """Sort members; drop a `full` of defaults, unless another member decides which weights train."""
        rest = [member for member in strategies if member != Full()]
        alone = weights_members(rest) == [Full()]
        return cls(tuple(sorted(rest if alone else strategies, key=_sort_key)))

    def __eq__(self, other: object) -> bool:
        return self.members == other.members if isinstance(other, Plan) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.members)

    def __str__(self) -> str:
        return "+".join(_label(member) for member in self.members) or Full.name

    def canonical(self) -> list[dict[str, Any]]:
        """Give every option of every member, defaults filled in, as JSON-able dicts with the name added.

        What a run's id and saved plans are made from: a default that changes later changes neither. An option that came
        after 0.1.0 is there only where it differs from its default, so that what was run before keeps its id.
        """
        return [_fields(member) for member in self.members or (Full(),)]

    def problems(
        self, device: torch.device | str, model: nn.Module | None = None, head: HeadChoice = "auto", item: Any = None
    ) -> tuple[Problem, ...]:
        """Give all reasons why this plan cannot run on `device`, none if it can; raises nothing.

        With `model` (also on `meta`: weights are not read; `head` as in `Recipe.apply`) and `item`, one of those to
        train on, also on these.
        """
        unusable = [(member.name, None if item is None else member.unsupported_item(item)) for member in self.members]
        found = [Problem("unavailable", f"{name}: {reason}") for name, reason in unusable if reason]
        layout = None
        if model is not None:
            try:
                layout = find_layout(model, head)
            except PlanError as problem:
                found.append(Problem("scope", str(problem)))
                model = None
        return (*found, *find_problems(self.members, device, model, layout))

    def environ(self) -> dict[str, str]:
        """Give the environment variables, name → value, that must be set before torch is imported."""
        return {key: value for member in self.members for key, value in member.environ().items()}

    def rates(self) -> LearningRates:
        """Give the peak learning rates: `lr` of pretrained weights and adapters, `head_lr` of fusion and head."""
        return plan_lrs(self.members)

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give facts for the record on `device`: `precision` (fp32, bf16, fp16), `grad_accumulation`, more."""
        facts: dict[str, str | int] = {"precision": "fp32", "grad_accumulation": 1}
        for member in self.members:
            facts.update(member.facts(device))
        return facts


def _sort_key(member: Strategy) -> tuple[int, str, str, str]:
    fields = _fields(member)
    return member.stage, member.name, str(fields.get("scope") or ""), json.dumps(fields, sort_keys=True)


def _fields(member: Strategy) -> dict[str, Any]:
    fields = {"name": member.name}
    for option in dataclasses.fields(member):
        value = getattr(member, option.name)
        if ADDED not in option.metadata or value != option.default:
            fields[option.name] = _as_json(value)
    return fields


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _label(member: Strategy) -> str:
    plain = {key: _as_json(value) for key, value in (defaults(type(member)) | following(member)).items()}
    plain["name"] = member.name
    changed = [f"{key}={value!r}" for key, value in _fields(member).items() if value != plain[key]]
    return f"{member.name}({', '.join(changed)})" if changed else member.name
