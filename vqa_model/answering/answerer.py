"""A saved model, ready to answer questions about pictures: for people, pages and notebooks.

Nothing here trains, reads pickles or runs code that came with the weights: weights are safetensors, and only a
folder (or hub id) of this suite's own model type is loaded.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import logging

from vqa_model.data.pictures import read_picture
from vqa_model.modeling.from_disk import FROM_DISK, check_files, first_line
from vqa_model.modeling.processing import VQAProcessor
from vqa_model.modeling.vqa import VQAConfig, VQAModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

Picture = Image.Image | Path | str
MULTI_LABEL = "multi_label_classification"
WRONG_WEIGHTS = {
    "missing_keys": "are missing",
    "unexpected_keys": "belong to no part of it (adapters must be merged first)",
    "mismatched_keys": "do not fit config.json",
}


@dataclass(frozen=True)
class Answer:
    """An answer of the vocabulary, and how sure the model is of it, 0..1."""

    text: str
    probability: float


@dataclass(frozen=True)
class Answerer:
    """A model with its processor; `name` is that of its folder."""

    name: str
    model: VQAModel
    processor: VQAProcessor

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Answerer:
        """Load what `VQATask.save_model` wrote, a folder or a hub id; ValueError says in one line what is wrong."""
        logging.disable_progress_bar()  # loading takes a moment; a hub id's download has a bar of its own
        _check_device(device)
        model_folder = _model_folder(folder)
        try:
            with _quiet():
                model, found = VQAModel.from_pretrained(
                    model_folder,
                    use_safetensors=True,
                    **FROM_DISK,
                    ignore_mismatched_sizes=True,  # refused below, by name
                    output_loading_info=True,
                )
                processor = VQAProcessor.from_pretrained(model_folder, **FROM_DISK)
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise ValueError(f"{folder}: cannot be loaded as a model: {first_line(error)}") from error
        for kind, what in WRONG_WEIGHTS.items():
            if names := sorted(name if isinstance(name, str) else name[0] for name in found[kind]):
                raise ValueError(f"{folder}: {len(names)} weights of the model {what}, first {names[0]}")
        name = Path(folder).resolve().name if Path(folder).is_dir() else str(folder)
        return cls(name, model.to(device).eval(), processor)

    def answer(self, picture: Picture, question: str, top: int = 5) -> list[Answer]:
        """Give the likeliest answers to one question, best first."""
        return self.answer_all([(picture, question)], top)[0]

    def answer_all(
        self, queries: Sequence[tuple[Picture, str]], top: int = 5, batch_size: int = 64
    ) -> list[list[Answer]]:
        """Give the likeliest answers to each question; a picture that several of a batch are on is encoded once.

        ValueError for a picture that cannot be read, a question without words, `top` or `batch_size` below 1.
        """
        for option, value in (("top", top), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{option} {value} is below 1")
        empty = [number for number, (_, question) in enumerate(queries, 1) if not question.strip()]
        if empty:
            raise ValueError(f"question {empty[0]} of {len(queries)} has no words; ask something")
        found: list[list[Answer]] = []
        for start in range(0, len(queries), batch_size):
            found += self._answer_batch(queries[start : start + batch_size], top)
        return found

    def truncated(self, questions: Sequence[str]) -> list[str]:
        """Those of the questions whose end the model does not read: they are longer than it was trained with."""
        if not questions:
            return []
        pieces = self.processor.tokenizer(list(questions), truncation=False, verbose=False)["input_ids"]
        return [question for question, found in zip(questions, pieces, strict=True) if len(found) > self.max_tokens]

    @property
    def max_tokens(self) -> int:
        """Word pieces of a question that the model reads, those at its beginning and end among them."""
        max_tokens: int = self.processor.tokenizer.model_max_length
        return max_tokens

    def _answer_batch(self, queries: Sequence[tuple[Picture, str]], top: int) -> list[list[Answer]]:
        keys = [id(picture) if isinstance(picture, Image.Image) else str(picture) for picture, _ in queries]
        pictures = dict(zip(keys, (picture for picture, _ in queries), strict=True))
        rows = {key: row for row, key in enumerate(pictures)}
        inputs = self.processor(
            [_open(picture) for picture in pictures.values()],
            [question for _, question in queries],
            picture_index=[rows[key] for key in keys],
        )
        with torch.no_grad():
            logits = self.model(**inputs.to(self.model.device)).logits.float()
        best = self._probabilities(logits).topk(min(top, logits.shape[1]))
        labels = self.model.config.id2label
        rows_of = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [[Answer(labels[i], p) for i, p in zip(*row, strict=True)] for row in rows_of]

    def _probabilities(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.model.config.problem_type == MULTI_LABEL else logits.softmax(-1)


def _open(picture: Picture) -> Image.Image:
    return picture if isinstance(picture, Image.Image) else read_picture(Path(picture))[1]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing bars for a local file and tables of what the caller refuses in one line."""
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_device(device: str) -> None:
    """ValueError where nothing can be computed on it."""
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here ({first_line(error)}); cpu always can") from error


def _model_folder(source: str | Path) -> Path:
    """Folder of a model named by folder or hub id; of the latter, only what is read is fetched, never a pickle."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors"]))
        except (OSError, ValueError) as error:
            raise ValueError(f"{source}: no such folder, and the hub gives no model: {first_line(error)}") from error
    _check_folder(folder)
    return folder


def _check_folder(folder: Path) -> None:
    """ValueError where the folder does not hold a model of ours."""
    file = folder / "config.json"
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        kind = fields.get("model_type")
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no config.json; name a folder that `run_matrix.py export` wrote") from error
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not a model's configuration: {first_line(error)}") from error
    if kind != VQAConfig.model_type:
        raise ValueError(f"{file}: a model of type {kind!r}, not {VQAConfig.model_type!r}; export one from a run")
    if not (folder / "processor_config.json").is_file():
        raise ValueError(f"{folder}: no processor_config.json; the processor has to lie with the model")
    check_files(folder)
