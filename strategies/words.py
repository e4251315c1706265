"""From words to plans: `lora(r=8)+amp` becomes a `Plan`, and a saved folder becomes a tuned model again.

Recipes are expanded first, so an alias and its expansion are the same plan.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strategies.catalogue import catalogue
from strategies.errors import PlanError, closest_first
from strategies.grammar import Call, parse_sums
from strategies.manifest import MANIFEST_FILE, check
from strategies.plan import Plan
from strategies.protocol import Strategy, defaults
from strategies.recipes import RECIPES
from strategies.storage import put_back, read_facts
from strategies.unpacking import to_float

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from strategies.merging import Merged
    from strategies.tuned import Tuned


@dataclass(frozen=True)
class NamedPlan:
    """A plan and the words it was asked for with."""

    text: str
    plan: Plan


def parse_plans(text: str) -> tuple[NamedPlan, ...]:
    """Read a comma-separated list; all unknown words and values are reported at once."""
    plans: list[NamedPlan] = []
    wrong: list[str] = []
    for entry, calls in parse_sums(text):
        members: list[Strategy] = []
        for call in calls:
            try:
                members += _expand(call)
            except PlanError as problem:
                wrong.append(str(problem))
        plans.append(NamedPlan(entry, Plan.of(members)))
    if wrong:
        raise PlanError("\n".join(dict.fromkeys(wrong)))
    seen: dict[Plan, str] = {}
    for named in plans:
        if named.plan in seen:
            raise PlanError(f"{seen[named.plan]!r} and {named.text!r} are the same plan ({named.plan}); leave one out")
        seen[named.plan] = named.text
    return tuple(plans)


def compose(text: str) -> Plan:
    """Read one sum, such as `lora(r=8)+amp`."""
    plans = parse_plans(text)
    if len(plans) != 1:
        raise PlanError(f"{text!r} names {len(plans)} plans, one is wanted; join strategies with +")
    return plans[0].plan


def baseline() -> Plan:
    """Give the empty sum, which every other plan is compared with: all weights train, plainly."""
    return Plan.of(())


def load(folder: Path, model: nn.Module, *, device: torch.device | str = "cpu") -> Tuned:
    """Apply a saved plan to a freshly built base `model` and put the tuned tensors back.

    `PlanError` for a folder whose files are not those of its manifest, or of another model.
    """
    facts = read_facts(folder)
    if (Path(folder) / MANIFEST_FILE).is_file():  # folders of before have none
        check(Path(folder))
    plan = Plan.of([part for member in facts["members"] for part in _expand(Call(member.pop("name"), member))])
    given = {key: facts.get(key) for key in ("total_steps", "lr", "head_lr")}
    tuned = plan.apply(model, device=device, head=facts["head"], seed=facts["seed"], **given)
    put_back(folder, model, tuned.full_state())
    return tuned


def load_plain(folder: Path, model: nn.Module, *, device: torch.device | str = "cpu") -> Merged:
    """Put a saved plan's result into a freshly built base `model` as plain float weights, adapters merged.

    `PlanError` for adapters that cannot be merged (`load` keeps them as they are). Gives what merging did.
    """
    tuned = load(folder, model, device=device)
    to_float(model)
    return tuned.merge()


def _expand(call: Call) -> list[Strategy]:
    """Turn a word into strategies: one, or a recipe's."""
    if call.name in RECIPES:
        if call.arguments:
            raise PlanError(
                f"{call.name} takes no options, it is short for {RECIPES[call.name][0]}: write that sum and give its "
                "members options, as in lora(r=4)"
            )
        return [part for _, calls in parse_sums(RECIPES[call.name][0]) for inner in calls for part in _expand(inner)]
    known = catalogue()
    if call.name not in known:
        raise PlanError(f"unknown strategy {call.name!r}; there is: {closest_first(call.name, [*known, *RECIPES])}")
    return [build(known[call.name], call.arguments)]


def build(strategy: type[Strategy], arguments: Mapping[str, Any]) -> Strategy:
    """Make a strategy from typed words; unknown options name the known ones, closest first."""
    known = [option.name for option in dataclasses.fields(strategy)]
    problems = [
        f"{strategy.name} has no option {word!r}; it has: {closest_first(word, known)}"
        for word in arguments
        if word not in known
    ]
    problems += [
        f"{strategy.name} needs {option}=… (`run_matrix.py list {strategy.name}` says which there are)"
        for option, default in defaults(strategy).items()
        if default is dataclasses.MISSING and option not in arguments
    ]
    if problems:
        raise PlanError("; ".join(problems))
    return strategy(**arguments)
