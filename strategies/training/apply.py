"""A plan applied to a model: structure, device, engine and optimizer, in the order that its members need.

Three stages, which `apply` goes through and a prediction takes one by one: `transform` on CPU or meta, `place` on the
device, `finish` with engine and optimizer.
"""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.engine import Engine
from strategies.execution.optimizer import adamw
from strategies.language.coverage import frozen_rest, with_frozen_base
from strategies.language.rates import weights_members
from strategies.protocol import ROUNDING, Context, State, Strategy
from strategies.quiet import import_packages
from strategies.saving.base_hashes import hash_base
from strategies.saving.moved_base import note_base
from strategies.structure.beside.token_rows import replaced_rows
from strategies.structure.blocks import disable_fast_path
from strategies.structure.find_layout import find_layout
from strategies.structure.freezing import freeze_batch_norms, freeze_parameters
from strategies.structure.layers.half_precision import train_in_float32
from strategies.structure.layers.stand_ins import answer_as_before
from strategies.structure.layers.tied_weights import refuse_frozen_in_part
from strategies.training.parameter_groups import parameter_groups
from strategies.training.tuned import PLAN_ATTRIBUTE, Tuned
from strategies.training.untrainable import refuse_untrainable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch
    from torch import nn

    from strategies.language.plan import Plan
    from strategies.layout import HeadChoice, Layout
    from strategies.saving.base_hashes import Hash


def apply(
    plan: Plan, model: nn.Module, *, device: torch.device | str = "cpu", head: HeadChoice = "auto", seed: int = 0,
    total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    base: Mapping[str, Hash] | None = None, freeze_rest: bool = True,
) -> Tuned:  # fmt: skip
    """Make `model` ready in place; see `Recipe.apply`. `base`: hashes of what will not be saved, if they are known.

    freeze_rest: freeze what lies beside adapters in a tower that is adapted in part, as folders of before did not.
    """
    from torch.utils.weak import WeakIdKeyDictionary

    import_packages(plan.members)
    base_parameters = WeakIdKeyDictionary({parameter: name for name, parameter in model.named_parameters()})
    resting = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    begin = _now(device)
    context = _prepare(plan, model, device=device, head=head, seed=seed, total_steps=total_steps)
    prepared = _now(device)
    rows = replaced_rows(plan.members, model, lambda: context.layout)
    hashes = hash_base(model, _may_stay(plan, model, context), rows) if base is None else dict(base)
    start = _now(device)
    _change(plan, model, context, freeze_rest=freeze_rest)
    transformed = _now(device)
    model.to(context.device)
    moved = _now(device)
    place(plan, model, context)
    setup = prepared - begin + transformed - start + _now(device) - moved
    if any(member.setup_during_move for member in plan.members):
        setup += moved - transformed
    tuned = finish(plan, model, context, lr=lr, head_lr=head_lr, base_parameters=base_parameters)
    tuned.setup_seconds = setup if plan.members else 0.0
    saved = {base_parameters.get(p, name) for name, p in model.named_parameters() if name in tuned.saved_names}
    tuned.base = {name: known for name, known in hashes.items() if name not in saved}
    tuned.noted = note_base(model, base_parameters, resting, tuned.saved_names)
    return tuned


def transform(
    plan: Plan, model: nn.Module, *, device: torch.device | str = "cpu", head: HeadChoice = "auto", seed: int = 0,
    total_steps: int | None = None,
) -> Context:  # fmt: skip
    """Change the structure only, on CPU or meta; see `Recipe.transform`."""
    import_packages(plan.members)
    context = _prepare(plan, model, device=device, head=head, seed=seed, total_steps=total_steps)
    _change(plan, model, context)
    return context


def _prepare(
    plan: Plan, model: nn.Module, *, device: torch.device | str, head: HeadChoice, seed: int, total_steps: int | None
) -> Context:
    """Refuse what cannot be, and find the layout; nothing is changed."""
    import torch

    problems = plan.problems(device, model, head)
    if problems:
        raise PlanError(f"{plan}: " + "; ".join(problem.reason for problem in problems))
    if PLAN_ATTRIBUTE in vars(model):
        raise PlanError(f"the model was changed by a plan before ({vars(model)[PLAN_ATTRIBUTE]}): build it again")
    layout = find_layout(model, head)
    if layout.left_out:
        warnings.warn(
            f"head={head!r} leaves out {', '.join(layout.left_out)}, which the checkpoint did not have: where they are "
            "frozen they stay as they were drawn, and are not saved; name them in head=[…], too",
            stacklevel=4,
        )
    return Context(layout, torch.device(device), plan.facts(device), seed, total_steps)


def _may_stay(plan: Plan, model: nn.Module, context: Context) -> set[str]:
    """Name the parameters that may not be saved: the plan freezes them, or they do not train as they are."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    frozen |= frozen_rest(model, context.layout, plan.members).parameters
    for member in weights_members(plan.members):
        if not member.trains_scope:
            frozen |= context.layout.parameter_names(model, member.scope_name())
    return {name for name in frozen if not context.layout.is_new(name)}


def _change(plan: Plan, model: nn.Module, context: Context, *, freeze_rest: bool = True) -> None:
    """Change the structure of a model that was looked at."""
    if any(overridden(member, ("transform", "place")) for member in plan.members):  # `full` only trains it
        vars(model)[PLAN_ATTRIBUTE] = str(plan)
    if freeze_rest:
        rest = frozen_rest(model, context.layout, plan.members)
        freeze_parameters(model, rest.parameters)
        freeze_batch_norms(map(model.get_submodule, rest.modules))
    for member in plan.members:
        member.transform(model, context)
    refuse_frozen_in_part(model, context.layout, weights_members(plan.members))
    if not any(ROUNDING in member.capabilities() for member in plan.members):
        train_in_float32(model, with_frozen_base(model, context.layout, plan.members))
    answer_as_before(model)
    disable_fast_path(model)


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
        refuse_untrainable(plan, model, groups)
        if not groups:
            raise PlanError(f"{plan}: nothing is left to train{_why_nothing_trains(model, context.layout)}")
        optimizer: torch.optim.Optimizer = factory(groups)
        return optimizer

    return make


def _why_nothing_trains(model: nn.Module, layout: Layout) -> str:
    """Say what to do where the plan freezes all there is."""
    if tied := layout.tied_head(model):
        return f": the head is tied to {tied}, which is frozen; train the last blocks or use adapters"
    if not layout.new_parts:
        why = f": there is no head ({layout.head_origin})"
        return f"{why}; name what is new with head=…, train the last blocks (freeze(last_n=1)) or use adapters (lora)"
    return ""


def _is_added(parameter: nn.Parameter, base_parameters: Any) -> bool:
    """Say whether a plan added this parameter (a quantised copy of a base weight is none)."""
    return parameter not in base_parameters and parameter.is_floating_point()


def _now(device: torch.device | str) -> float:
    """Give seconds, after the device has finished what it was given."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
