"""Bring your own task, with text: who does it to whom, in sentences that are told in two voices.

    python run_matrix.py --task "examples.sentences_task:SentencesTask" --strategies freeze,lora,amp

"the cat chased the dog" and "the dog was chased by the cat" have the same answer, cat: a model that ignores the order
of words cannot know. Sentences are generated; whole (animal, verb, animal) facts are held out, in both voices. Like
every task this is a frozen dataclass that imports nothing from the suite.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

Item = Mapping[str, Any]
ANIMALS = ("cat", "dog", "fox", "goat", "hen", "owl", "pig", "wolf")
VERBS = ("chased", "followed", "greeted", "helped", "pushed", "saw", "taught", "warned")
WORDS = ("the", "was", "by", *ANIMALS, *VERBS)
FACTS = tuple((one, verb, other) for one, verb, other in itertools.product(ANIMALS, VERBS, ANIMALS) if one != other)
SMALLEST, TRAINING, TUNING = 50, 300, 360  # facts; the rest of the 448 is for evaluation
LONGEST = 7


class SentenceNet(nn.Module):
    """Embeddings, a small transformer encoder, the mean over words, a head over the animals."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(len(WORDS) + 1, width, padding_idx=len(WORDS))
        self.places = nn.Embedding(LONGEST, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(ANIMALS))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (batch, animals) of word numbers (batch, words); padding has the last number."""
        padding = ids == len(WORDS)
        places = self.places.weight[: ids.shape[1]]
        read = self.encoder(self.words(ids) + places, src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(read.dtype)
        logits: Tensor = self.head((read * kept).sum(1) / kept.sum(1))
        return logits


@dataclass(frozen=True, kw_only=True)
class SentencesTask:
    """Who did it? `width` of the network; `limit` keeps that many training facts, each told twice."""

    width: int = 64
    limit: int = TRAINING

    default_epochs: ClassVar[float] = 8
    default_batch_size: ClassVar[int] = 32
    dataset_name: ClassVar[str] = "sentences"
    model_name: ClassVar[str] = "sentence-net"

    def prepare(self) -> None:
        """Refuse sizes that leave no data or no heads."""
        if not SMALLEST <= self.limit <= TRAINING or self.width < 1 or self.width % 4:
            sizes = f"limit={self.limit} should be {SMALLEST} to {TRAINING}, width={self.width} a multiple of 4"
            raise ValueError(f"SentencesTask: {sizes}")

    def data_fingerprint(self) -> str:
        """Hash of the facts in their order."""
        return hashlib.sha256(repr(FACTS).encode()).hexdigest()[:12]

    def model_fingerprint(self) -> str:
        """The model starts at random, so its shape decides it."""
        return hashlib.sha256(repr(SentenceNet(self.width)).encode()).hexdigest()[:12]

    def build_model(self) -> nn.Module:
        """A fresh network from the global random state."""
        return SentenceNet(self.width)

    def _items(self, start: int, stop: int) -> list[Item]:
        items: list[Item] = []
        for index in np.random.default_rng(0).permutation(len(FACTS))[start:stop]:
            one, verb, other = FACTS[index]
            told = f"the {one} {verb} the {other}", f"the {other} was {verb} by the {one}"
            items += [
                {"id": 2 * int(index) + voice, "text": text, "animal": ANIMALS.index(one)}
                for voice, text in enumerate(told)
            ]
        return items

    def train_set(self) -> list[Item]:
        """Items to train on."""
        return self._items(0, self.limit)

    def tune_set(self) -> list[Item]:
        """Items that may choose rates."""
        return self._items(TRAINING, TUNING)

    def eval_set(self) -> list[Item]:
        """Items to report on."""
        return self._items(TUNING, len(FACTS))

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """One batch: ids (batch,), words (batch, 7), animals (batch,)."""
        rows = [[WORDS.index(word) for word in item["text"].split()] for item in items]
        return {
            "id": torch.tensor([item["id"] for item in items]),
            "words": torch.tensor([row + [len(WORDS)] * (LONGEST - len(row)) for row in rows]),
            "animal": torch.tensor([item["animal"] for item in items]),
        }

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(model(batch["words"]).float(), batch["animal"])

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The most probable animal of each item."""
        best = model(batch["words"]).float().softmax(-1).max(-1)
        return [
            {"id": item, "prediction": ANIMALS[answer], "target": ANIMALS[truth], "probability": probability}
            for item, answer, truth, probability in zip(
                batch["id"].tolist(), best.indices.tolist(), batch["animal"].tolist(), best.values.tolist(), strict=True
            )
        ]

    def evaluate(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[Any, float]]:
        """The share of facts that are right in both voices; an example scores 1 when it is right."""
        right = {p["id"]: float(p["prediction"] == p["target"]) for p in predictions}
        both = [right[item] * right.get(item ^ 1, 0.0) for item in right]
        return {"both_voices": sum(both) / len(both)}, right
