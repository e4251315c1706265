"""A plan: the strategies of one run, sorted, checked, and applied to a model.

Recipes are expanded first, so an alias and its expansion are the same plan; members are sorted, so the order
typed never matters. `full` with defaults is the empty sum and leaves no trace.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.blocks import call_children
from strategies.catalogue import catalogue
from strategies.engine import Engine
from strategies.errors import PlanError, closest_first
from strategies.grammar import Call, parse_sums
from strategies.layout import lay_out
from strategies.optimization import Rates, adamw, parameter_groups, plan_rates, weights_members
from strategies.problems import Problem, find_problems
from strategies.protocol import Context, State, Strategy, build, defaults
from strategies.recipes import RECIPES
from strategies.storage import put_back, read_facts
from strategies.tuned import Tuned
from strategies.weights.full import Full

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn


@dataclass(frozen=True)
class Plan:
    """Sorted members; make one with `compose` or `parse_plans`."""

    members: tuple[Strategy, ...]

    @classmethod
    def of(cls, strategies: Sequence[Strategy]) -> Plan:
        """Sort members; drop a `full` that says nothing, unless another member decides which weights train."""
        rest = [member for member in strategies if member != Full()]
        alone = weights_members(rest) == [Full()]
        return cls(tuple(sorted(rest if alone else strategies, key=_order)))

    def __str__(self) -> str:
        return "+".join(_label(member) for member in self.members) or Full.name

    def canonical(self) -> list[dict[str, Any]]:
        """Give every field of every member, defaults filled in, as JSON-able dicts with the name added."""
        return [_fields(member) for member in self.members or (Full(),)]

    def problems(
        self, device: torch.device | str, model: nn.Module | None = None, head: str | None = None
    ) -> tuple[Problem, ...]:
        """Give all reasons why this plan cannot run on `device` (and on `model`, whose weights are not read)."""
        if model is None:
            return find_problems(self.members, device, None, None)
        try:
            layout = lay_out(model, head)
        except PlanError as problem:
            return (Problem("scope", str(problem)), *find_problems(self.members, device, None, None))
        return find_problems(self.members, device, model, layout)

    def environ(self) -> dict[str, str]:
        """Give the environment variables that must be set before torch starts."""
        return {key: value for member in self.members for key, value in member.environ().items()}

    def rates(self) -> Rates:
        """Give the peak learning rates."""
        return plan_rates(self.members)

    def facts(self, device: torch.device | str) -> dict[str, str | int]:
        """Give facts for the record, at least precision and gradient accumulation."""
        facts: dict[str, str | int] = {"precision": "fp32", "grad_accumulation": 1}
        for member in self.members:
            facts.update(member.facts(device))
        return facts

    def transform(
        self, model: nn.Module, *, device: torch.device | str = "cpu", head: str | None = None, seed: int = 0,
        total_steps: int | None = None,
    ) -> Context:  # fmt: skip
        """Change the structure only, on CPU or meta; `PlanError` for a plan with problems."""
        import torch

        problems = self.problems(device, model, head)
        if problems:
            raise PlanError(f"{self}: " + "; ".join(problem.reason for problem in problems))
        context = Context(lay_out(model, head), torch.device(device), self.facts(device), seed, total_steps)
        for member in self.members:
            member.transform(model, context)
        call_children(model)
        return context

    def apply(
        self, model: nn.Module, *, device: torch.device | str = "cpu", head: str | None = None, seed: int = 0,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> Tuned:  # fmt: skip
        """Make `model` ready in place: structure, device, optimizer. `lr`, `head_lr` replace the plan's rates."""
        import torch
        from torch.utils.weak import WeakIdKeyDictionary

        for package in {package for member in self.members for package in member.packages}:
            importlib.import_module(package)
        of_base = WeakIdKeyDictionary(dict.fromkeys(model.parameters()))
        start = _now(device)
        context = self.transform(model, device=device, head=head, seed=seed, total_steps=total_steps)
        transformed = _now(device)
        model.to(context.device)
        moved = _now(device)
        for member in self.members:
            member.place(model, context)
        placed = _now(device)
        setup = transformed - start + placed - moved
        if any(member.works_on_move for member in self.members):
            setup += moved - transformed
        make = self._optimizer_factory(context, lr, head_lr)
        engine = Engine(context.device, str(context.facts["precision"]))
        model, optimizer = engine.prepare(model.train(), make)
        torch.manual_seed(seed)  # the same random stream of training for every plan, whatever set-up drew
        state = State(model, optimizer, context.device, total_steps, context.kept)
        own = frozenset(
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or context.layout.is_new(name) or _is_added(parameter, of_base)
        )
        return Tuned(self, engine, context, state, own=own, setup_seconds=setup if self.members else 0.0)

    def _optimizer_factory(self, context: Context, lr: float | None, head_lr: float | None) -> Any:
        """Give `model -> optimizer`, with the members' changes to groups and factory."""

        def make(model: nn.Module) -> torch.optim.Optimizer:
            groups = parameter_groups(model, context.layout, self.members, lr, head_lr)
            factory: Any = adamw
            for member in self.members:
                groups = member.param_groups(groups, model, context)
                factory = member.optimizer(factory)
            if not groups:
                tied = context.layout.tied_head(model)
                why = (
                    f": the head is tied to {tied}, which rests; train the last blocks or use adapters" if tied else ""
                )
                raise PlanError(f"{self}: nothing is left to train{why}")
            optimizer: torch.optim.Optimizer = factory(groups)
            return optimizer

        return make


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
    """Apply a saved plan to a freshly built base `model` and put the tuned tensors back."""
    facts = read_facts(folder)
    plan = Plan.of([part for member in facts["members"] for part in _expand(Call(member.pop("name"), member))])
    steps = facts.get("total_steps")
    tuned = plan.apply(model, device=device, head=facts["head"], seed=facts["seed"], total_steps=steps)
    put_back(folder, model, tuned.full_state())
    return tuned


def _expand(call: Call) -> list[Strategy]:
    """Turn a word into strategies: one, or a recipe's."""
    if call.name in RECIPES:
        if call.arguments:
            raise PlanError(
                f"{call.name} is short for {RECIPES[call.name][0]}; give options there: {RECIPES[call.name][0]}(…)"
            )
        return [part for _, calls in parse_sums(RECIPES[call.name][0]) for inner in calls for part in _expand(inner)]
    known = catalogue()
    if call.name not in known:
        raise PlanError(f"unknown strategy {call.name!r}; there is: {closest_first(call.name, [*known, *RECIPES])}")
    return [build(known[call.name], call.arguments)]


def _order(member: Strategy) -> tuple[int, str, str, str]:
    fields = _fields(member)
    return member.stage, member.name, str(fields.get("scope") or ""), json.dumps(fields, sort_keys=True)


def _fields(member: Strategy) -> dict[str, Any]:
    values = {option.name: getattr(member, option.name) for option in dataclasses.fields(member)}
    return {"name": member.name} | {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _label(member: Strategy) -> str:
    plain = {"name": member.name, **defaults(type(member))}
    changed = [f"{key}={value!r}" for key, value in _fields(member).items() if value != plain[key]]
    return f"{member.name}({', '.join(changed)})" if changed else member.name


def _is_added(parameter: nn.Parameter, of_base: Any) -> bool:
    """Say whether a plan added this parameter (a quantised copy of a base weight is none)."""
    return parameter not in of_base and parameter.is_floating_point()


def _now(device: torch.device | str) -> float:
    """Give seconds, after the device has finished what it was given."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
