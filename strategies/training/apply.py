"""A plan applied to a model: structure, device, engine and optimizer, in the order that its members need.

Three stages, which `apply` goes through and a prediction takes one by one: `transform` on CPU or meta, `place` on the
device, `finish` with engine and optimizer.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.engine import Engine
from strategies.execution.optimizer import adamw
from strategies.language.coverage import frozen_rest, with_frozen_base
from strategies.layout import find_layout
from strategies.protocol import ROUNDING, Context, State, Strategy
from strategies.quiet import import_packages
from strategies.structure.blocks import disable_fast_path
from strategies.structure.freezing import freeze_batch_norms, freeze_parameters
from strategies.structure.half_precision import is_half, train_in_float32
from strategies.training.parameter_groups import parameter_groups
from strategies.training.tuned import PLAN_ATTRIBUTE, Tuned

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import nn

    from strategies.language.plan import Plan


def apply(
    plan: Plan, model: nn.Module, *, device: torch.device | str = "cpu", head: str | None = None, seed: int = 0,
    total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
) -> Tuned:  # fmt: skip
    """Make `model` ready in place; see `Recipe.apply`."""
    from torch.utils.weak import WeakIdKeyDictionary

    import_packages(plan.members)
    base_parameters = WeakIdKeyDictionary(dict.fromkeys(model.parameters()))
    start = _now(device)
    context = transform(plan, model, device=device, head=head, seed=seed, total_steps=total_steps)
    transformed = _now(device)
    model.to(context.device)
    moved = _now(device)
    place(plan, model, context)
    setup = transformed - start + _now(device) - moved
    if any(member.setup_during_move for member in plan.members):
        setup += moved - transformed
    tuned = finish(plan, model, context, lr=lr, head_lr=head_lr, base_parameters=base_parameters)
    tuned.setup_seconds = setup if plan.members else 0.0
    return tuned


def transform(
    plan: Plan, model: nn.Module, *, device: torch.device | str = "cpu", head: str | None = None, seed: int = 0,
    total_steps: int | None = None,
) -> Context:  # fmt: skip
    """Change the structure only, on CPU or meta; see `Recipe.transform`."""
    import torch

    problems = plan.problems(device, model, head)
    if problems:
        raise PlanError(f"{plan}: " + "; ".join(problem.reason for problem in problems))
    if PLAN_ATTRIBUTE in vars(model):
        raise PlanError(f"the model was changed by a plan before ({vars(model)[PLAN_ATTRIBUTE]}): build it again")
    import_packages(plan.members)
    context = Context(find_layout(model, head), torch.device(device), plan.facts(device), seed, total_steps)
    if any(overridden(member, ("transform", "place")) for member in plan.members):  # `full` only trains it
        vars(model)[PLAN_ATTRIBUTE] = str(plan)
    rest = frozen_rest(model, context.layout, plan.members)
    freeze_parameters(model, rest.parameters)
    freeze_batch_norms(map(model.get_submodule, rest.modules))
    for member in plan.members:
        member.transform(model, context)
    if not any(ROUNDING in member.capabilities() for member in plan.members):
        train_in_float32(model, with_frozen_base(model, context.layout, plan.members))
    disable_fast_path(model)
    return context


def overridden(member: Strategy, hooks: Iterable[str]) -> list[str]:
    """Give those of `hooks` that a member implements."""
    return [hook for hook in hooks if getattr(type(member), hook) is not getattr(Strategy, hook)]


def place(plan: Plan, model: nn.Module, context: Context) -> None:
    """Finish the changes to a model that has moved to its device."""
    for member in plan.members:
        member.place(model, context)


def finish(
    plan: Plan, model: nn.Module, context: Context, *, lr: float | None = None, head_lr: float | None = None,
    base_parameters: Any = (),
) -> Tuned:  # fmt: skip
    """Give a placed model its engine and optimizer; `base_parameters`: the parameters it had before the plan."""
    import torch

    make_engine: Any = Engine
    for member in plan.members:
        make_engine = member.engine(make_engine)
    engine = make_engine(context.device, str(context.facts["precision"]))
    model, optimizer = engine.prepare(model.train(), _optimizer_factory(plan, context, lr, head_lr))
    for prepare in context.with_optimizer:
        prepare(optimizer)
    torch.manual_seed(context.seed)  # the same random stream of training for every plan, whatever set-up drew
    state = State(model, optimizer, context.device, context.total_steps, context.member_state)
    saved_names = frozenset(
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad or context.layout.is_new(name) or _is_added(parameter, base_parameters)
    )
    saved_names |= context.changed_weights
    return Tuned(plan, engine, context, state, saved_names=saved_names, lr_overrides={"lr": lr, "head_lr": head_lr})


def _optimizer_factory(plan: Plan, context: Context, lr: float | None, head_lr: float | None) -> Any:
    """Give `model -> optimizer`, with the members' changes to groups and factory."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        groups = parameter_groups(model, context.layout, plan.members, lr, head_lr)
        factory: Any = adamw
        for member in plan.members:
            groups = member.param_groups(groups, model, context)
            factory = member.optimizer(factory)
        _refuse_half_precision(plan, groups)
        if not groups:
            tied = context.layout.tied_head(model)
            why = f": the head is tied to {tied}, which rests; train the last blocks or use adapters" if tied else ""
            raise PlanError(f"{plan}: nothing is left to train{why}")
        optimizer: torch.optim.Optimizer = factory(groups)
        return optimizer

    return make


def _refuse_half_precision(plan: Plan, groups: list[dict[str, Any]]) -> None:
    """Refuse to train pretrained 16-bit weights with an optimizer that rounds small updates to nothing."""
    halves = [p.dtype for group in groups for p in group["params"] if is_half(p)]
    if halves and not any(ROUNDING in member.capabilities() for member in plan.members):
        raise PlanError(
            f"{plan}: {len(halves)} pretrained tensors would train in {halves[0]}, where small updates round to "
            "nothing: add pure_bf16, load the model in 32 bits (model.float()), or take adapters (lora), which have 32"
        )


def _is_added(parameter: nn.Parameter, base_parameters: Any) -> bool:
    """Say whether a plan added this parameter (a quantised copy of a base weight is none)."""
    return parameter not in base_parameters and parameter.is_floating_point()


def _now(device: torch.device | str) -> float:
    """Give seconds, after the device has finished what it was given."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
