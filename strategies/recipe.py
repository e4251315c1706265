"""What `compose` returns: a plan with what one does with it, and the ways from words and saved folders to it.

A thin top: a `Plan` (`strategies/language/plan.py`) is data, what applies it stands in `training` and `integrations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from strategies.errors import PlanError
from strategies.integrations.accelerate import PreparedLoop, for_accelerate
from strategies.integrations.huggingface_trainer import for_trainer
from strategies.language.grammar import Call
from strategies.language.parse import expand, parse_members
from strategies.language.plan import Plan
from strategies.saving.base_hashes import NO_HASHES, check_base, from_json
from strategies.saving.dequantise import to_float
from strategies.saving.manifest import MANIFEST_FILE, check
from strategies.saving.weights_file import BASE, load_weights, read_facts
from strategies.structure.beside.token_rows import replaced_rows
from strategies.structure.find_layout import find_layout
from strategies.training.apply import apply, transform

if TYPE_CHECKING:
    import torch
    from torch import nn

    from strategies.layout import HeadChoice
    from strategies.protocol import Context
    from strategies.saving.merge import Merged
    from strategies.training.tuned import Tuned


@final
class Recipe(Plan):
    """A plan that can be applied to a model, here or in the loops of others; make one with `compose`."""

    def apply(
        self, model: nn.Module, *, device: torch.device | str = "cpu", head: HeadChoice = "auto", seed: int = 0,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> Tuned:  # fmt: skip
        """Prepare `model` for training in place, and give it with its optimizer: structure, device, parameter groups.

        model: any `nn.Module` in float32, on the CPU.
        head: what is new and trains from scratch, where it is not found by itself: names of modules (or of parameters),
        or None where all is pretrained. How it is found: `strategies/structure/find_layout.py`; `describe()` says it.
        seed: of new weights and of the random stream of training.
        total_steps: number of updates, for the schedule and for members that must know it.
        lr, head_lr: peak learning rates instead of the plan's.
        `PlanError` for a plan with problems, before anything is changed, for a model that a plan changed before, and
        where nothing would train.
        """
        return apply(self, model, device=device, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr)

    def transform(
        self, model: nn.Module, *, device: torch.device | str = "cpu", head: HeadChoice = "auto", seed: int = 0,
        total_steps: int | None = None,
    ) -> Context:  # fmt: skip
        """Change the structure of `model` only, in place, on the CPU or on `meta`; arguments as in `apply`.

        Gives what hooks know: layout, device, facts. A model takes one plan that changes it: also after a failure
        half-way it has to be built again. `PlanError` for a plan with problems, and for a model changed before.
        """
        return transform(self, model, device=device, head=head, seed=seed, total_steps=total_steps)

    def for_trainer(
        self, model: nn.Module, args: Any, *, head: HeadChoice = "auto", seed: int | None = None, collate: Any = None,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Apply the plan for Hugging Face's Trainer: `Trainer(**plan.for_trainer(model, args), train_dataset=…)`.

        args: `TrainingArguments`; seed: `args.seed` if not given; collate: becomes Trainer's `data_collator`.
        Members that must know the number of updates beforehand (adalora, say) take it from `args.max_steps` or
        `total_steps`; the schedule knows it once training begins. `callbacks[0].save(folder)` writes what
        `strategies.load` reads. The loss of an update is that of its whole batch, however many micro-batches it has.
        `PlanError` for a plan with problems, for members whose hooks Trainer has no place for, and for settings of
        `args` that contradict the plan. See https://huggingface.co/docs/transformers/main_classes/trainer
        """
        return for_trainer(
            self, model, args, head=head, seed=seed, collate=collate, total_steps=total_steps, lr=lr, head_lr=head_lr
        )

    def for_accelerate(
        self, accelerator: Any, model: nn.Module, *, head: HeadChoice = "auto", seed: int = 0,
        total_steps: int | None = None, lr: float | None = None, head_lr: float | None = None,
    ) -> PreparedLoop:  # fmt: skip
        """Apply the plan in an Accelerate loop, with model, optimizer and schedule prepared; arguments as in `apply`.

        Micro-batches count by what the model's loss is a mean over; a loss that the loop computes itself, each alike.
        `PlanError` for a plan with problems, for members whose hooks such a loop has no place for, and for an
        `Accelerator` whose settings contradict the plan. See https://huggingface.co/docs/accelerate
        """
        return for_accelerate(
            self, accelerator, model, head=head, seed=seed, total_steps=total_steps, lr=lr, head_lr=head_lr
        )


@dataclass(frozen=True)
class NamedPlan:
    """A recipe, and the text it was requested with: `text` as typed, whitespace around + removed; `plan` the recipe."""

    text: str
    plan: Recipe


def parse_plans(text: str) -> tuple[NamedPlan, ...]:
    """Read a comma-separated list of recipes, such as `lora(r=16)+amp, qlora`, in the order typed.

    `PlanError` with a line for each unknown word, option or value, and for two entries that are the same plan.
    """
    plans = [NamedPlan(entry, Recipe.of(members)) for entry, members in parse_members(text)]
    seen: dict[Plan, str] = {}
    for named in plans:
        if named.plan in seen:
            raise PlanError(f"{seen[named.plan]!r} and {named.text!r} are the same plan ({named.plan}); leave one out")
        seen[named.plan] = named.text
    return tuple(plans)


def compose(text: str) -> Recipe:
    """Read one recipe, such as `lora(r=8)+amp`: words of `catalogue()` or `recipes()` joined by +, options by name.

    Whether it can run on a device and a model is found by `Plan.problems` and `Recipe.apply`.
    `PlanError`, which names the known words closest first, for an unknown word, option or value, and for a list.
    """
    plans = parse_plans(text)
    if len(plans) != 1:
        raise PlanError(f"{text!r} names {len(plans)} plans, one is wanted; join strategies with +")
    return plans[0].plan


def baseline() -> Recipe:
    """Give the recipe without any technique, `full`, which every other one is compared with."""
    return Recipe.of(())


def load(folder: Path, model: nn.Module, *, device: torch.device | str = "cpu") -> Tuned:
    """Apply the plan that `Tuned.save` wrote to a freshly built base `model`, in place, and put the tuned tensors back.

    model: with its pretrained weights, which the folder does not hold; they are held to the folder's hashes of them.
    The model is left in evaluation mode; `Tuned.step` puts it into training mode.
    `PlanError` for a folder that is incomplete, whose files are not those of its manifest (SHA-256), that was saved
    from another model or tuned on another base, and for a plan with problems on `device`; a warning where a base of
    another number type cannot be compared. Format: https://github.com/huggingface/safetensors
    """
    facts, base = read_facts(folder), None
    if (Path(folder) / MANIFEST_FILE).is_file():  # folders of before have none
        base = check(Path(folder)).get(BASE)
    plan = Recipe.of([part for member in facts["members"] for part in expand(Call(member.pop("name"), member))])
    known = None if base is None else from_json(base)
    head = facts["head"] or None
    rows = replaced_rows(plan.members, model, lambda: find_layout(model, head))
    checked = NO_HASHES if known is None else check_base(Path(folder), known, model, rows)
    tuned = apply(
        plan, model, device=device, head=head, seed=facts["seed"], freeze_rest=known is not None,
        **{key: facts.get(key) for key in ("total_steps", "lr", "head_lr")}, base=known if checked.exact else None,
    )  # fmt: skip
    tuned.saved_names |= tuned.noted.keys() & facts.get("moved", ())
    load_weights(folder, model, tuned.full_state())
    tuned.base_note = checked.note
    model.eval()
    return tuned


def load_plain(folder: Path, model: nn.Module, *, device: torch.device | str = "cpu") -> Merged:
    """Put a saved plan's result into a freshly built base `model` as plain float weights, adapters merged, to evaluate.

    Gives the number of merged layers and the relative drift of their outputs, as `Tuned.merge` does.
    `PlanError` where `load` raises it, and for adapters that cannot be merged (`load` keeps them as they are).
    """
    tuned = load(folder, model, device=device)
    to_float(model)
    return tuned.merge()
