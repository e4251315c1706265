"""The rungs of the ladder, and a way to train: one set of switches, all carried out by `Tuned.step`.

That our loop costs no more than a bare one is what `peers.py` shows; so rungs differ in what is switched alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from student import DecodingSet, collate_decoded, score_step
from torch import Tensor, nn

from bench.worker.loop import cycle
from strategies import compose
from vqa_model.task import VQATask

STUDENT_BATCH, BATCH, SEED = 4, 16, 0
SCHEDULE = "schedule(shape='wsd')"  # at both ends: so few updates learn more at a rate that stays up
SCORED = 512  # questions of a loss, at most


@dataclass(frozen=True)
class Way:
    """How to train."""

    batch: int = STUDENT_BATCH
    scored: bool = True  # by scikit-learn at every step
    cached: bool = False  # pictures decoded once
    fused: bool = False
    members: tuple[str, ...] = ()

    def with_member(self, member: str) -> "Way":
        return replace(self, members=(*self.members, member))


# Each rung's name and what it changes of the way below.
RUNGS = {
    "batch size": lambda way: replace(way, batch=BATCH),
    "no metrics per step": lambda way: replace(way, scored=False),
    "dynamic padding": lambda way: way.with_member("bucketing(multiple=1)"),
    "picture cache": lambda way: replace(way, cached=True),
    "autocast": lambda way: way.with_member("amp"),
    "grouping": lambda way: way.with_member("group_by_image"),
    "fused optimizer": lambda way: replace(way, fused=True),
    "compile": lambda way: way.with_member("compile"),
}


@dataclass
class Climber:
    """A model that trains in its way; `asked` counts the questions it has seen."""

    task: VQATask
    pictures: Path
    way: Way
    lr_scale: float = 1.0
    total: int | None = None  # questions to come; without a number, the rate stays
    asked: int = 0
    losses: list[Tensor] = field(default_factory=list)
    _batches: Iterator[Any] = iter(())

    def __post_init__(self) -> None:
        torch.manual_seed(SEED)
        model = self.task.build_model()
        plan = compose("+".join([SCHEDULE, *self.way.members]))
        rates = plan.rates()
        assert rates.lr is not None
        lr, head_lr = rates.lr * self.lr_scale, rates.head_lr * self.lr_scale
        steps = self.total and self.total // self.way.batch
        self.tuned = plan.apply(model, seed=SEED, total_steps=steps, lr=lr, head_lr=head_lr)
        for group in self.tuned.optimizer.param_groups:
            group["fused"] = self.way.fused or None
        if self.way.scored:
            model.register_forward_hook(lambda _, __, out: setattr(self, "logits", out.logits.detach()))
        known = self.task.train_set()
        loader = self.tuned.loader(
            known if self.way.cached else DecodingSet(known, self.pictures, known.pixels.shape[-1]),
            batch_size=self.way.batch,
            collate=self.task.collate if self.way.cached else collate_decoded,
            generator=torch.Generator().manual_seed(SEED),
        )
        self._batches = cycle(loader)

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        losses = self.task.loss(model, batch)
        if self.way.scored:
            score_step(self.logits, batch, losses.mean())
        return losses

    def advance(self, questions: int) -> None:
        """Train on at least so many questions more."""
        goal = self.asked + questions
        while self.asked < goal:
            self.losses.append(self.tuned.step(self.loss, next(self._batches)))
            self.asked += self.way.batch

    def unseen_loss(self, items: Sequence[Any]) -> float:
        """Mean loss of the first of these questions."""
        questions = min(len(items), SCORED)
        chunks = [range(start, min(start + BATCH, questions)) for start in range(0, questions, BATCH)]
        with self.tuned.evaluating():
            batches = [self.task.collate([items[place] for place in chunk]) for chunk in chunks]
            return float(torch.cat([self.task.loss(self.tuned.model, batch) for batch in batches]).mean())
