"""Try a plan on a tiny two-tower model on CPU: whether it runs, is refused, and what it leaves behind.

This is the ground truth behind `docs/compatibility.md`. A trial trains three updates with an evaluation in between.
What it leaves behind is a `Trace`: losses, what trains, number types, bytes kept for the backward pass, learning rates,
graphs compiled. A member whose presence leaves no trace at all is inert, which is as wrong as a crash.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from strategies.errors import PlanError
from strategies.plan import Plan
from strategies.words import compose

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

Status = Literal["ok", "refused", "unverified", "inert", "crashed"]
STEPS = 3
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.0}


@dataclass(frozen=True)
class Outcome:
    """How a trial ended, and why."""

    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Trace:
    """What a run leaves behind that a member could have changed."""

    losses: tuple[float, ...]
    trained: tuple[str, ...]
    number_types: tuple[str, ...]
    kept_bytes: tuple[int, int]  # as seen by hooks outside and inside those of the plan
    rates: tuple[float, ...]
    graphs: int


def tiny_model() -> nn.Module:
    """Make a ViT and a BERT of two layers with a fusion layer and a head, the same each time."""
    import torch
    from torch import nn
    from transformers import BertConfig, BertModel, ViTConfig, ViTModel

    class TwoTowers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            picture = ViTConfig(**SIZES, **DROPOUT, image_size=16, patch_size=8)
            text = BertConfig(**SIZES, **DROPOUT, vocab_size=40, max_position_embeddings=16)
            self.vision = ViTModel(picture, add_pooling_layer=False)
            self.text = BertModel(text, add_pooling_layer=False)
            self.fusion, self.head = nn.Linear(64, 32), nn.Linear(32, 3)

        @property
        def scopes(self) -> dict[str, nn.Module]:
            return {"vision": self.vision, "text": self.text, "fusion": self.fusion, "head": self.head}

        def forward(self, pictures: Tensor, words: Tensor) -> Any:
            seen = self.vision(pixel_values=pictures).last_hidden_state[:, 0]
            read = self.text(input_ids=words).last_hidden_state[:, 0]
            return self.head(torch.tanh(self.fusion(torch.cat([seen, read], -1))))

    torch.manual_seed(11)
    return TwoTowers()


def tiny_batch() -> dict[str, Tensor]:
    """Make a batch of 12 pictures, sentences and labels."""
    import torch

    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(12, 3, 16, 16, generator=generator)
    words = torch.randint(0, 40, (12, 6), generator=generator)
    return {"pictures": pictures, "words": words, "labels": torch.arange(12) % 3}


def tiny_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Give the mean cross entropy."""
    import torch

    scores = model(batch["pictures"], batch["words"]).float()
    return torch.nn.functional.cross_entropy(scores, batch["labels"])


def try_plan(text: str) -> tuple[Outcome, Trace | None]:
    """Run a sum of strategies on the tiny model; a trace for what ran."""
    try:
        plan = compose(text)
        problems = plan.problems("cpu", tiny_model())
        if problems:
            kinds = {problem.kind for problem in problems}
            told = [problem.reason for problem in problems if kinds == {"unavailable"} or problem.kind != "unavailable"]
            return Outcome("unverified" if kinds == {"unavailable"} else "refused", "; ".join(told)), None
        return Outcome("ok"), _run(plan)
    except PlanError as problem:
        return Outcome("refused", str(problem)), None
    except Exception as problem:  # noqa: BLE001 - the purpose of a trial is to find out what raises
        return Outcome("crashed", f"{type(problem).__name__}: {problem}"), None
    finally:
        _forget_graphs()


class Counter:
    """Sums the bytes that autograd saves."""

    def __init__(self) -> None:
        self.total = 0

    def hooks(self) -> AbstractContextManager[None]:
        """Count inside; hooks that are set further in see the tensors in place of these."""
        import torch

        return torch.autograd.graph.saved_tensors_hooks(self._count, lambda tensor: tensor)

    def around(self, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Count in a loss function."""

        def counted(*arguments: Any) -> Tensor:
            with self.hooks():
                return loss(*arguments)

        return counted

    def _count(self, tensor: Tensor) -> Tensor:
        self.total += tensor.numel() * tensor.element_size()
        return tensor


def _run(plan: Plan) -> Trace:
    """Train, evaluate and train on; refuse results that are not finite or do not move."""
    import torch

    torch.manual_seed(1)
    batch = tiny_batch()
    tuned = plan.apply(tiny_model(), total_steps=STEPS)
    before = _scores(tuned, batch)
    outside, inside = Counter(), Counter()
    losses = []
    for step in range(STEPS):
        with outside.hooks():
            losses.append(float(tuned.step(tiny_loss if step else inside.around(tiny_loss), batch)))
        if step == 0:
            _scores(tuned, batch)
    after = _scores(tuned, batch)
    assert torch.isfinite(after).all(), "outputs are not finite"
    assert not torch.equal(after, before), "outputs did not move"
    return Trace(
        losses=tuple(losses),
        trained=tuple(sorted(name for name, p in tuned.model.named_parameters() if p.requires_grad)),
        number_types=tuple(str(p.dtype) for p in tuned.model.parameters()),
        kept_bytes=(outside.total, inside.total),
        rates=tuple(float(group["lr"]) for group in tuned.optimizer.param_groups),
        graphs=_graphs(),
    )


def _scores(tuned: Any, batch: dict[str, Tensor]) -> torch.Tensor:
    with tuned.evaluating():
        scores: torch.Tensor = tuned.model(batch["pictures"], batch["words"]).float()
        return scores


def _graphs() -> int:
    """Count the graphs compiled so far."""
    dynamo = sys.modules.get("torch._dynamo")
    return int(dynamo.utils.counters["stats"]["unique_graphs"]) if dynamo else 0


def _forget_graphs() -> None:
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo:
        dynamo.reset()
        dynamo.utils.counters.clear()
