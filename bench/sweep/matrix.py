"""From what was asked for to the list of runs: every plan × seed, the baseline first, the task's controls last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from bench.records.results_folder import InputError
from bench.records.spec import Kind, RunSpec
from strategies import NamedPlan, baseline

BASELINE: Final = baseline()


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How runs are trained, as given on the command line; None means the task's or the plan's default."""

    seeds: Sequence[int]
    batch_size: int | None = None
    epochs: float | None = None
    max_steps: int | None = None
    lr: float | None = None
    lr_for_all: bool = False


def with_baseline(plans: Sequence[NamedPlan], *, include: bool) -> list[NamedPlan]:
    """The plans with full fine-tuning in front, unless it is there already or not wanted."""
    rest = [named for named in plans if named.plan != BASELINE]
    if len(rest) == len(plans) and not include:
        return list(plans)
    return [NamedPlan(str(BASELINE), BASELINE), *rest]


def build_matrix(plans: Sequence[NamedPlan], prepared: Mapping[str, Any], training: TrainingOptions) -> list[RunSpec]:
    """Every run of the sweep, in the order it will be run."""
    shared = setting(prepared["main"], training)
    specs = []
    for seed in training.seeds:
        for named in plans:
            kind: Kind = "baseline" if named.plan == BASELINE else "run"
            rate_applies = training.lr_for_all or kind == "run" or len(plans) == 1
            lr = training.lr if rate_applies else None
            spec = run_spec(
                named, prepared["device"], prepared["main"], dataclasses.replace(training, seeds=[seed], lr=lr)
            )
            specs.append(
                dataclasses.replace(
                    spec,
                    kind=kind,
                    setting=shared,
                    refusal=refusal(prepared["problems"][str(named.plan)]),
                    predicted_peak_bytes=prepared["predicted_peak_bytes"].get(str(named.plan)),
                    model_flops_per_sample=prepared["model_flops_per_sample"],
                )
            )
        for name, control in prepared["controls"].items():
            control_training = dataclasses.replace(training, seeds=[seed], lr=None)
            spec = run_spec(NamedPlan(str(BASELINE), BASELINE), prepared["device"], control, control_training)
            specs.append(dataclasses.replace(spec, kind="control", setting=shared, strategy=name))
    return specs


def setting(task: Mapping[str, Any], training: TrainingOptions) -> str:
    """What the runs of a sweep share and runs of another may not, in words; controls have their task's."""
    length = f"{task['epochs'] if training.epochs is None else training.epochs:g} epochs"
    cut = [f"at most {training.max_steps} steps"] if training.max_steps else []
    contents = [f"data {task['data'][:6]}", f"model {task['model'][:6]}"]
    return ", ".join([*filter(None, [task["changed"]]), length, *cut, *contents])


def run_spec(named: NamedPlan, device: str, task: Mapping[str, Any], training: TrainingOptions) -> RunSpec:
    """One run's specification: the first seed, and the plan's own rates unless the rules name one."""
    rates = named.plan.rates()
    lr = rates.lr if training.lr is None or rates.lr is None else training.lr
    epochs = float(task["epochs"]) if training.epochs is None else training.epochs
    return RunSpec(
        members=named.plan.canonical(), task=task["task"], task_options=task["task_options"], data=task["data"],
        model=task["model"], seed=training.seeds[0], batch_size=training.batch_size or task["batch_size"],
        epochs=epochs, max_steps=training.max_steps, lr=lr, head_lr=rates.head_lr,
        device=device, strategy=named.text, plan=str(named.plan), task_text=task["task_text"],
        dataset=task["dataset"], model_name=task["model_name"],
    )  # fmt: skip


def refusal(problems: Sequence[Mapping[str, str]]) -> dict[str, str] | None:
    """Status and reason of a plan that cannot run; None when nothing stands in its way."""
    if not problems:
        return None
    only_missing = all(problem["kind"] == "unavailable" for problem in problems)
    return {
        "status": "unavailable" if only_missing else "refused",
        "reason": "; ".join(problem["reason"] for problem in problems),
    }


def certain_refusal(named: NamedPlan) -> Mapping[str, str] | None:
    """What the plan alone tells, on any device and model: known at once, before anything is loaded."""
    problems = [asdict(problem) for problem in named.plan.problems("cpu")]
    return refusal([problem for problem in problems if problem["kind"] != "unavailable"])


def refuse_if_none_can_run(plans: Sequence[NamedPlan], refusals: Mapping[str, Mapping[str, str] | None]) -> None:
    """InputError when nothing that was asked for can run: a sweep of refusals helps nobody."""
    found = {named.text: refusals.get(named.text) for named in plans}
    if all(found.values()):
        reasons = "; ".join(f"{text}: {why['reason']}" for text, why in found.items() if why)
        raise InputError(f"nothing to run: {reasons}")
