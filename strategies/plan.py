"""A plan: the strategies of one run, sorted, checked, and applied to a model.

Recipes are expanded first, so an alias and its expansion are the same plan; members are sorted, so the order
typed never matters. `full` with defaults is the empty sum and leaves no trace.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.accelerating import Ready, for_accelerate
from strategies.blocks import call_children
from strategies.engine import Engine
from strategies.errors import PlanError
from strategies.inside import overridden
from strategies.layout import lay_out
from strategies.optimization import Rates, adamw, parameter_groups, plan_rates, weights_members
from strategies.problems import Problem, find_problems
from strategies.protocol import ROUNDING, Context, State, Strategy, defaults
from strategies.quiet import import_packages
from strategies.trainers import for_trainer
from strategies.tuned import MARK, Tuned
from strategies.weights.full import Full

if TYPE_CHECKING:
    import torch
    from torch import nn


HALF = 2  # bytes of a 16-bit number


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
        self, device: torch.device | str, model: nn.Module | None = None, head: str | None = None, item: Any = None
    ) -> tuple[Problem, ...]:
        """Give all reasons why this plan cannot run on `device`.

        With `model` (whose weights are not read) and `item`, one of those it is to be trained on, also on these.
        """
        unusable = [(member.name, None if item is None else member.unusable(item)) for member in self.members]
        found = [Problem("unavailable", f"{name}: {reason}") for name, reason in unusable if reason]
        layout = None
        if model is not None:
            try:
                layout = lay_out(model, head)
            except PlanError as problem:
                found.append(Problem("scope", str(problem)))
                model = None
        return (*found, *find_problems(self.members, device, model, layout))

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
        """Change the structure only, on CPU or meta; `PlanError` for a plan with problems.

        A model takes one plan that changes it: also after a failure half-way it has to be built again.
        """
        import torch

        problems = self.problems(device, model, head)
        if problems:
            raise PlanError(f"{self}: " + "; ".join(problem.reason for problem in problems))
        if MARK in vars(model):
            raise PlanError(f"the model was changed by a plan before ({vars(model)[MARK]}): build it again")
        import_packages(self.members)
        context = Context(lay_out(model, head), torch.device(device), self.facts(device), seed, total_steps)
        if any(overridden(member, ("transform", "place")) for member in self.members):  # `full` only trains it
            vars(model)[MARK] = str(self)
        for member in self.members:
            member.transform(model, context)
        call_children(model)
        return context

    def apply(
        self, model: nn.Module, *, device: torch.device | str = "cpu", head: str | None = None, seed: int = 0,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> Tuned:  # fmt: skip
        """Make `model` ready in place: structure, device, optimizer. `lr`, `head_lr` replace the plan's rates."""
        from torch.utils.weak import WeakIdKeyDictionary

        import_packages(self.members)
        of_base = WeakIdKeyDictionary(dict.fromkeys(model.parameters()))
        start = _now(device)
        context = self.transform(model, device=device, head=head, seed=seed, total_steps=total_steps)
        transformed = _now(device)
        model.to(context.device)
        moved = _now(device)
        self.place(model, context)
        setup = transformed - start + _now(device) - moved
        if any(member.works_on_move for member in self.members):
            setup += moved - transformed
        tuned = self.finish(model, context, lr=lr, head_lr=head_lr, of_base=of_base)
        tuned.setup_seconds = setup if self.members else 0.0
        return tuned

    def place(self, model: nn.Module, context: Context) -> None:
        """Finish the changes to a model that has moved to its device."""
        for member in self.members:
            member.place(model, context)

    def finish(
        self, model: nn.Module, context: Context, *, lr: float | None = None, head_lr: float | None = None,
        of_base: Any = (),
    ) -> Tuned:  # fmt: skip
        """Give a placed model its engine and optimizer; `of_base`: the parameters it had before the plan."""
        import torch

        make = self._optimizer_factory(context, lr, head_lr)
        make_engine: Any = Engine
        for member in self.members:
            make_engine = member.engine(make_engine)
        engine = make_engine(context.device, str(context.facts["precision"]))
        model, optimizer = engine.prepare(model.train(), make)
        torch.manual_seed(context.seed)  # the same random stream of training for every plan, whatever set-up drew
        state = State(model, optimizer, context.device, context.total_steps, context.kept)
        own = frozenset(
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad or context.layout.is_new(name) or _is_added(parameter, of_base)
        )
        return Tuned(self, engine, context, state, own=own, given={"lr": lr, "head_lr": head_lr})

    def for_trainer(
        self, model: nn.Module, args: Any, *, head: str | None = None, seed: int | None = None, collate: Any = None,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Apply the plan for Hugging Face's Trainer: `Trainer(**plan.for_trainer(model, args), train_dataset=…)`.

        Members that must know the number of updates beforehand (adalora, say) take it from `args.max_steps` or
        `total_steps`; the schedule knows it once training begins. `callbacks[0].save(folder)` writes what
        `strategies.load` reads. The loss of an update is the mean of its micro-batches' losses.
        """
        return for_trainer(
            self, model, args, head=head, seed=seed, collate=collate, total_steps=total_steps, lr=lr, head_lr=head_lr
        )

    def for_accelerate(
        self, accelerator: Any, model: nn.Module, *, head: str | None = None, seed: int = 0,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> Ready:  # fmt: skip
        """Apply the plan in an Accelerate loop, with model, optimizer and schedule prepared."""
        return for_accelerate(
            self, accelerator, model, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr
        )

    def _optimizer_factory(self, context: Context, lr: float | None, head_lr: float | None) -> Any:
        """Give `model -> optimizer`, with the members' changes to groups and factory."""

        def make(model: nn.Module) -> torch.optim.Optimizer:
            groups = parameter_groups(model, context.layout, self.members, lr, head_lr)
            factory: Any = adamw
            for member in self.members:
                groups = member.param_groups(groups, model, context)
                factory = member.optimizer(factory)
            self._refuse_half_precision(groups)
            if not groups:
                tied = context.layout.tied_head(model)
                why = (
                    f": the head is tied to {tied}, which rests; train the last blocks or use adapters" if tied else ""
                )
                raise PlanError(f"{self}: nothing is left to train{why}")
            optimizer: torch.optim.Optimizer = factory(groups)
            return optimizer

        return make

    def _refuse_half_precision(self, groups: list[dict[str, Any]]) -> None:
        """Refuse to train 16-bit weights with an optimizer that rounds small updates to nothing."""
        halves = [p.dtype for group in groups for p in group["params"] if p.dtype.itemsize == HALF]
        if halves and not any(ROUNDING in member.capabilities() for member in self.members):
            raise PlanError(
                f"{self}: {len(halves)} tensors would train in {halves[0]}, where small updates round to nothing: load "
                "the model in 32 bits (model.float()), or add pure_bf16"
            )


def _order(member: Strategy) -> tuple[int, str, str, str]:
    fields = _fields(member)
    return member.stage, member.name, str(fields.get("scope") or ""), json.dumps(fields, sort_keys=True)


def _fields(member: Strategy) -> dict[str, Any]:
    values = {option.name: getattr(member, option.name) for option in dataclasses.fields(member)}
    return {"name": member.name} | {key: _as_json(value) for key, value in values.items()}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _label(member: Strategy) -> str:
    plain = {"name": member.name} | {key: _as_json(value) for key, value in defaults(type(member)).items()}
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
