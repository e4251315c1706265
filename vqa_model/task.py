"""The visual-question-answering task: data, model, loss and score behind the bench's Task protocol.

A frozen dataclass whose fields are its options. What it derives from them lives in `VQAData`
(parts, splits, vocabulary, decoded pictures) and is computed once, on first use. Nothing but
`tune_set`, a tenth of the chosen training pictures, may choose anything.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from vqa_model.controls import MajorityAnswer
from vqa_model.data.answers import NO_LABEL
from vqa_model.data.dataset import QuestionSet, collate_questions
from vqa_model.data.derived import DataOptions, VQAData
from vqa_model.data.mounted_files import mounted_data
from vqa_model.data.official_accuracy import evaluate
from vqa_model.data.official_normalisation import normalise
from vqa_model.data.pictures import read_picture
from vqa_model.modeling.config import make_config
from vqa_model.modeling.model_summary import describe_model
from vqa_model.modeling.processing import make_processor, save_model
from vqa_model.modeling.tokenizer import load_tokenizer, max_text_tokens, tokenizer_fingerprint
from vqa_model.modeling.towers import Tower, find_tower, image_settings
from vqa_model.modeling.vqa import VQAConfig, VQAModel
from vqa_model.options import check_options, problem_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

Batch = dict[str, "Tensor"]


@dataclass(frozen=True, kw_only=True)
class VQATask:
    """Answer questions about pictures; every field is an option of the task."""

    data: str = ""  # folder in the official VQA v2 layout, or "kaggle"; "" is the embedded picture world
    model: str = "tiny"
    vision: str = ""  # checkpoint folder or hub id; "" is the preset's own tower
    text: str = ""
    image_size: int = 0  # of the pictures the vision tower sees; 0 is what its preprocessor says
    towers: str = "pretrained"
    fusion: str = "cross_attention"  # or a call, as cross_attention(layers=1)
    objective: str = "cross_entropy"
    fraction: float = 1.0  # of the training pictures
    eval_fraction: float = 0.0  # of the val pictures; 0 takes what was downloaded, else all
    split_seed: int = 0
    min_count: int = 3  # an answer joins the vocabulary when it is the majority this often in training
    max_answers: int = 3129
    vocabulary_from: str = "train"  # or "train+val", as published figures have it: then evaluation has been looked at
    max_length: int = 0  # word pieces per question; 0 fits the training questions
    skip_bad_images: bool = False
    evaluate_on: str = "eval"
    control: str = ""

    packages: ClassVar[tuple[str, ...]] = (
        "transformers.models.vit.modeling_vit", "transformers.models.bert.modeling_bert", "safetensors.torch",
    )  # fmt: skip
    path_fields: ClassVar[tuple[str, ...]] = (
        "data", "vision", "text", "image_size", "eval_fraction", "vocabulary_from",
    )  # fmt: skip
    default_batch_size: ClassVar[int] = 32

    def __post_init__(self) -> None:
        options = fields(self)
        check_options({f.name: getattr(self, f.name) for f in options}, {f.name: f.default for f in options})

    @property
    def default_epochs(self) -> int:
        """Passes over the training set that suit the data."""
        return 5 if self.data else 2

    @property
    def folder(self) -> str:
        """Where the data lies; empty for the embedded picture world, "kaggle" finds what is mounted there."""
        return str(mounted_data()) if self.data == "kaggle" else self.data

    @property
    def dataset_name(self) -> str:
        """Name of the data for tables, never a path."""
        return self._data.name

    @property
    def model_name(self) -> str:
        """Name of the model for tables: the preset, the towers that replace its own, and the size of its pictures."""
        size = f"@{self.image_size}" if self.image_size else ""
        return "+".join([self.model, *(Path(tower).name for tower in (self.vision, self.text) if tower)]) + size

    @cached_property
    def _towers(self) -> dict[str, Tower]:
        options: dict[str, Any] = {"random": self.towers == "random", "image_size": self.image_size}
        return {kind: find_tower(kind, self.model, getattr(self, kind), **options) for kind in ("vision", "text")}

    @cached_property
    def _data(self) -> VQAData:
        return VQAData(
            options=DataOptions(**{f.name: getattr(self, f.name) for f in fields(DataOptions)} | {"data": self.folder}),
            image=image_settings(self._towers["vision"], self.image_size),
            tokenizer=load_tokenizer(self._towers["text"]),
            pad_id=self._towers["text"].config.pad_token_id or 0,
            max_tokens=max_text_tokens(self._towers["text"], self.max_length),
            blank=self.control == "question-only",
        )

    def prepare(self) -> None:
        """Check towers, read and check data, decode every picture once; one clear ValueError if bad."""
        self._data.prepare()

    def chosen_images(self) -> list[int]:
        """Ids of the training pictures that `fraction` chose, tune pictures included, sorted."""
        return sorted(self._data.chosen)

    def data_fingerprint(self) -> str:
        """Hash questions, answers and pictures of all three sets, not where they lie."""
        return self._data.fingerprint[:12]

    def model_fingerprint(self) -> str:
        """Hash configuration, tower weights, tokenizer and image settings, not where they lie."""
        config = self._config.to_dict()
        fusion = {name: config[name] for name in ("fusion", "fusion_dim", "fusion_layers", "fusion_heads")}
        inputs = [self._data.image.facts(), tokenizer_fingerprint(self._data.tokenizer)]
        answers = [] if self.vocabulary_from == "train" else [self._data.vocabulary]  # else data and options tell it
        parts = [*answers, fusion, self.control, inputs, *(tower.fingerprint() for tower in self._towers.values())]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def _config(self) -> VQAConfig:
        image, answers = self._data.image, self._data.vocabulary
        return make_config(
            self.model, self._towers, self.fusion, answers,
            image_mean=image.mean, image_std=image.std, problem_type=problem_type(self.objective, len(answers)),
        )  # fmt: skip

    def build_model(self) -> nn.Module:
        """Build the model in fp32 on the CPU; new parts draw from the global random generator."""
        if self.control == "majority-answer":
            labels = self._data.train.columns["label"]
            return MajorityAnswer(labels[labels != NO_LABEL].bincount(minlength=len(self._data.vocabulary)).tolist())
        return VQAModel(self._config, **{kind: tower.load() for kind, tower in self._towers.items()})

    def train_set(self) -> QuestionSet:
        """Questions to learn from."""
        return self._data.train

    def tune_set(self) -> QuestionSet:
        """Questions on the tenth of the training pictures that may choose rates and defaults."""
        return self._data.tune

    def eval_set(self) -> QuestionSet:
        """Questions of the val part, or the tune set where `evaluate_on` says so."""
        return self._data.tune if self.evaluate_on == "tune" else self._data.eval

    def collate(self, items: Sequence[Mapping[str, Any]]) -> Batch:
        """Gather a batch; pictures once, as bytes, with `picture_index` from question to picture."""
        return collate_questions(items)

    def _logits(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        if self.control == "majority-answer":
            scores: Tensor = model(batch["input_ids"])
            return scores.float()
        names = ("pixel_values", "input_ids", "attention_mask", "picture_index")
        logits: Tensor = model(**{name: batch[name] for name in names}).logits
        return logits.float()

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Give each question's loss, (questions,); one whose answer is not in the vocabulary counts as zero."""
        logits = self._logits(model, batch)
        if self.objective == "soft_bce":
            goal = torch.zeros_like(logits).scatter_add(1, batch["answer_index"], batch["answer_score"])
            return binary_cross_entropy_with_logits(logits, goal, reduction="none").sum(1)
        return cross_entropy(logits, batch["label"], ignore_index=NO_LABEL, reduction="none")

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Best answer, its probability and the (normalised) majority answer of each question."""
        logits = self._logits(model, batch)
        spread = logits.sigmoid() if self.objective == "soft_bce" else logits.softmax(-1)
        probability, best = spread.max(-1)
        rows = zip(batch["question_id"].tolist(), best.tolist(), probability.tolist(), strict=True)
        return [
            {
                "id": question,
                "prediction": self._data.vocabulary[answer],
                "target": normalise(self._data.by_id[question].majority),
                "probability": sure,
            }
            for question, answer, sure in rows
        ]

    def evaluate(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[int, float]]:
        """Official VQA accuracy in 0..1: overall, per answer and question type; and each question's score."""
        return evaluate(predictions, self._data.by_scored_id)

    def submission(self, predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Give the predictions in the official results format."""
        return [{"question_id": row["id"], "answer": row["prediction"]} for row in predictions]

    def controls(self) -> dict[str, VQATask]:
        """Sanity rows: the same task knowing nothing, and knowing the question but not the picture."""
        return {name: replace(self, control=name) for name in ("majority-answer", "question-only")}

    def describe(self) -> dict[str, Any]:
        """Configuration, parameters of every module, operations of every part, and which towers were pretrained."""
        pretrained = {kind: bool(tower.weights()) for kind, tower in self._towers.items()}
        return {**describe_model(self._config), "pretrained": pretrained}

    def picture_file(self, image_id: int) -> Path:
        """Where the picture of an evaluation question lies."""
        return self._data.picture_path("tune" if self.evaluate_on == "tune" else "eval", image_id)

    def save_model(self, model: nn.Module, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write a model of this task with processor and card; ValueError for a control, which is no model to use."""
        if not isinstance(model, VQAModel) or self.control:
            raise ValueError(f"the control {self.control!r} knows too little to be saved as a model")
        data = self._data
        processor = make_processor(data.image, data.tokenizer, pad_id=data.pad_id, max_length=data.max_length)
        questions = self.train_set().questions
        own = {"dataset": self.dataset_name, "objective": self.objective, "eval_samples": len(self.eval_set())}
        own |= {"train_samples": len(questions), "train_pictures": len(np.unique(questions.image_ids))}
        save_model(model, processor, own | dict(facts), folder)

    def examples(self, n: int) -> list[dict[str, Any]]:
        """Describe the first `n` evaluation questions on different pictures: image, question, answers."""
        questions = self.eval_set().questions
        indices = sorted(np.unique(questions.image_ids, return_index=True)[1].tolist())[:n]
        return [
            {
                "id": question.id,
                "image": read_picture(self.picture_file(question.image_id))[1],
                "question": question.text,
                "answers": list(question.answers),
            }
            for question in map(questions.__getitem__, indices)
        ]
