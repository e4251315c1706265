"""Four ways to train one model: our loop, a bare PyTorch loop, Hugging Face's Trainer, a course project's.

All start from the same weights and see the same batches, rates, decay, clipping and schedule; LoRA comes from
PEFT's `get_peft_model` in all but ours. What differs is the loop, and for the course project how it feeds and scores.
Each has a random stream of its own, so that dropout is the same for all although they train by turns.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from student import DecodingSet, collate_decoded, score_step
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from bench.records.events import EventWriter
from bench.worker.loop import Training, cycle
from bench.worker.sections import Clock
from strategies import compose
from strategies.execution.optimizer import MAX_NORM, WEIGHT_DECAY, default_lr_multiplier
from vqa_model.task import VQATask

SEED, READ_EVERY = 0, 20
TARGETS = r".*(vision|text)\..*\.(q_proj|v_proj|query|value)"  # of the two towers, as LoRA's paper has it


@dataclass
class Loss:
    """The task's loss, each call's kept on the device; what our loop knows of a task."""

    task: VQATask
    kept: list[Tensor] = field(default_factory=list)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        losses = self.task.loss(model, batch)
        self.kept.append(losses.detach())
        return losses

    def values(self) -> list[float]:
        """Mean loss of every step."""
        return [float(losses.mean()) for losses in self.kept]


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    task: VQATask
    pictures: Path  # folder of the training pictures
    recipe: str
    batch: int
    steps: int
    device: str

    @property
    def mixed(self) -> bool:
        return "amp" in self.recipe.split("+")

    def model(self) -> nn.Module:
        torch.manual_seed(SEED)
        return self.task.build_model()

    def loader(self, items: Dataset[Any], collate: Callable[..., Any]) -> DataLoader[Any]:
        order = torch.Generator().manual_seed(SEED)
        return DataLoader(
            items, batch_size=self.batch, shuffle=True, drop_last=True, generator=order, collate_fn=collate,
            pin_memory=self.device == "cuda",
        )  # fmt: skip

    def places(self) -> list[int]:
        """Positions of the questions in the order of the first pass."""
        order = self.loader(range(len(self.task.train_set())), lambda places: places)  # type: ignore[arg-type]
        return [place for batch in order for place in batch]


class Ours:
    """The suite: `bench.worker.loop.Training`, with all it measures and writes."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.loss = Loss(setting.task)
        tuned = compose(setting.recipe).apply(
            setting.model(), device=setting.device, seed=SEED, total_steps=setting.steps
        )
        emit = EventWriter(folder / "events.jsonl")
        clock = Clock(emit, tuned.device)
        loader = tuned.loader(
            setting.task.train_set(),
            batch_size=setting.batch,
            collate=setting.task.collate,
            generator=torch.Generator().manual_seed(SEED),
        )
        task: Any = self.loss
        self.training = Training(tuned, task, clock, emit, setting.batch, setting.steps)
        self.batches = cycle(loader)

    def advance(self, steps: int) -> None:
        with self.training.clock.section("train"):
            self.training._advance(self.batches, self.training.step + steps)  # noqa: SLF001 -- without evaluations


def peer_model(setting: Setting) -> nn.Module:
    """The model as others prepare it."""
    model = setting.model()
    if "lora" in setting.recipe.split("+"):
        torch.manual_seed(SEED)
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, modules_to_save=["fusion", "head"])
        model = peft.get_peft_model(model, config)
    return model.to(setting.device).train()


def peer_optimizer(setting: Setting, model: nn.Module, *, fused: bool) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW over the groups that our plans have, and the schedule they have."""
    rates = compose(setting.recipe).rates()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = any(part in {"fusion", "head"} for part in name.split("."))
            rate, decay = rates.head_lr if new else rates.lr or 0.0, WEIGHT_DECAY if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    listed = [{"params": chosen, "lr": rate, "weight_decay": decay} for (rate, decay), chosen in groups.items()]
    optimizer = torch.optim.AdamW(listed, fused=fused)
    return optimizer, LambdaLR(optimizer, lambda step: default_lr_multiplier(step, setting.steps))


class Bare:
    """A PyTorch loop with nothing around it: what can be reached."""

    fused = True

    def __init__(self, setting: Setting, _: Path) -> None:
        self.setting, self.loss = setting, Loss(setting.task)
        self.model = peer_model(setting)
        torch.manual_seed(SEED)
        self.optimizer, self.schedule = peer_optimizer(setting, self.model, fused=self.fused)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.batches: Iterator[Any] = cycle(self.loader())

    def loader(self) -> DataLoader[Any]:
        return self.setting.loader(self.setting.task.train_set(), self.setting.task.collate)

    def losses(self, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast(self.setting.device, torch.bfloat16, enabled=self.setting.mixed):
            return self.loss.loss(self.model, batch).mean()

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            batch = {
                name: value.to(self.setting.device, non_blocking=True) for name, value in next(self.batches).items()
            }
            self.losses(batch).backward()
            nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()


class Student(Bare):
    """The same loop fed and scored as course projects do it, with AdamW as it comes."""

    fused = False

    def loader(self) -> DataLoader[Any]:
        known = self.setting.task.train_set()
        return self.setting.loader(DecodingSet(known, self.setting.pictures, known.pixels.shape[-1]), collate_decoded)

    def __init__(self, setting: Setting, folder: Path) -> None:
        super().__init__(setting, folder)
        self.printed: tuple[float, ...] = ()
        self.model.register_forward_hook(lambda _, __, out: setattr(self, "logits", out.logits.detach()))

    def losses(self, batch: Mapping[str, Tensor]) -> Tensor:
        loss = super().losses(batch)
        self.printed = score_step(self.logits, batch, loss)
        return loss


class Listed(Sampler[int]):
    """Positions in an order that is given."""

    def __init__(self, places: list[int]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[int]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


class InTrainer:
    """Hugging Face's Trainer; it owns its loop, so the others take their turns inside its callback."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting, self.folder, self.loss = setting, folder, Loss(setting.task)
        self.model = peer_model(setting)
        self.optimizer, self.schedule = peer_optimizer(setting, self.model, fused=True)
        self.places = setting.places()

    def train(self, steps: int, callback: TrainerCallback | None = None, after: int = 0) -> None:
        """Do `steps` updates, on the batches after the first `after`."""
        loss, places = self.loss, self.places[after * self.setting.batch :]

        class Quiet(Trainer):
            def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
                return loss.loss(model, inputs).mean()

            def _get_train_sampler(self, _: Any = None) -> Listed:
                return Listed(places)

        arguments = TrainingArguments(
            output_dir=str(self.folder), max_steps=steps, per_device_train_batch_size=self.setting.batch,
            logging_steps=READ_EVERY, save_strategy="no", report_to="none", disable_tqdm=True, bf16=self.setting.mixed,
            remove_unused_columns=False, dataloader_drop_last=True, max_grad_norm=MAX_NORM,
            use_cpu=self.setting.device == "cpu", dataloader_pin_memory=self.setting.device == "cuda",
        )  # fmt: skip
        trainer = Quiet(
            model=self.model, args=arguments, train_dataset=self.setting.task.train_set(),
            data_collator=self.setting.task.collate, optimizers=(self.optimizer, self.schedule),
            callbacks=[callback] if callback else [],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
