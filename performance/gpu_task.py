"""The shared model at full size on generated pictures, for timing on a GPU: a task as any other, `--task` names it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vqa_model.data.answers import NO_LABEL
from vqa_model.picture_world.files import world_folder
from vqa_model.picture_world.scenes import Settings
from vqa_model.task import VQATask


@dataclass(frozen=True, kw_only=True)
class ReferenceTask(VQATask):
    """No evaluation while it trains, no control runs, and the loss on unseen pictures among the metrics."""

    model: str = "base"
    pairs: int = 1600  # of training pictures, with VQA v2's 5.36 questions per picture
    max_length: int = 24  # word pieces, to which a question of VQA v2 is padded where nothing trims it

    path_fields: ClassVar[tuple[str, ...]] = (*VQATask.path_fields, "pairs")  # the data's fingerprint tells

    @property
    def folder(self) -> str:
        """The generated pictures, in the official layout."""
        return str(world_folder(Settings(train_pairs=self.pairs, val_pairs=max(3, self.pairs // 40), draws=(6, 11))))

    def tune_set(self) -> Any:
        """Nothing to evaluate on the way."""
        return []

    def controls(self) -> dict[str, VQATask]:
        """None: what could be learned is not the question here."""
        return {}

    def build_model(self) -> nn.Module:
        """The model on the CPU, as ever; drawn on the GPU where there is one, which takes a tenth of the time."""
        if not torch.cuda.is_available() or torch.get_default_device().type == "meta":
            return super().build_model()
        with torch.device("cuda"):
            model = super().build_model()
        model = model.cpu()
        torch.cuda.empty_cache()
        return model

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """Predictions as ever, each with its loss."""
        kept: list[Tensor] = []
        watch = model.register_forward_hook(lambda _, __, out: kept.append(out.logits.detach().float()))
        try:
            predictions = super().predict(model, batch)
        finally:
            watch.remove()
        losses = cross_entropy(torch.cat(kept), batch["label"], ignore_index=NO_LABEL, reduction="none").tolist()
        return [{**found, "loss": loss} for found, loss in zip(predictions, losses, strict=True)]

    def evaluate(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[int, float]]:
        """Official accuracy, and the mean loss."""
        metrics, scores = super().evaluate(predictions)
        return {**metrics, "loss": sum(p["loss"] for p in predictions) / len(predictions)}, scores
