"""The card that is saved with a model: what it is, what it learnt from, how it was measured, how to use it.

A `README.md` with the metadata the Hugging Face hub reads. It is made from plain facts, whatever of them there is;
what is missing is left out, so a card never says more than what was measured.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqa_model.modeling.vqa import VQAModel

# fact: (words in the card, how its value is shown)
TRAINING: Final[dict[str, tuple[str, Callable[[Any], str]]]] = {
    "strategy": ("recipe", str),
    "plan": ("recipe in full", str),
    "dataset": ("data set", str),
    "train_samples": ("training questions", "{:,}".format),
    "train_pictures": ("training pictures", "{:,}".format),
    "eval_samples": ("questions evaluated on", "{:,}".format),
    "objective": ("objective", str),
    "epochs": ("epochs", "{:.3g}".format),
    "steps": ("updates", "{:,}".format),
    "batch_size": ("questions per update", str),
    "lr": ("learning rate", "{:g}".format),
    "head_lr": ("learning rate of fusion and head", "{:g}".format),
    "seed": ("seed", str),
    "ttt_seconds": ("time taken for training", "{:,.1f} s".format),
    "peak_allocated_bytes": ("peak memory of training", lambda size: f"{size / 2**20:,.1f} MiB"),
    "trainable_parameters": ("values trained", "{:,}".format),
    "device": ("device", str),
    "gpu_name": ("GPU", str),
    "run_id": ("run", str),
}
# metric: (words, the hub's name for its kind)
METRICS: Final[dict[str, tuple[str, str]]] = {
    "vqa_accuracy": ("VQA accuracy (official)", "accuracy"),
    "accuracy": ("accuracy on the majority answer", "accuracy"),
    "f1_macro": ("F1, macro", "f1"),
    "precision_macro": ("precision, macro", "precision"),
    "recall_macro": ("recall, macro", "recall"),
    "f1_weighted": ("F1, weighted", "f1"),
    "precision_weighted": ("precision, weighted", "precision"),
    "recall_weighted": ("recall, weighted", "recall"),
}
_USE = """```python
from vqa_model.answering.answerer import Answerer

for answer in Answerer.load({name!r}).answer("picture.jpg", "What color is the car?"):
    print(answer.text, answer.probability)
```

```sh
python -m vqa_model.predict --model {word} --image picture.jpg --question "What color is the car?"
```

Import `vqa_model.modeling.processing` to use `AutoModel` and `AutoProcessor` of transformers."""
_LIMITS = """The model chooses from a fixed list of {answers:,} answers, learnt from its training questions; it cannot
give any other. It was trained for comparing fine-tuning recipes, not for decisions about people."""
_LICENCES = """Questions and answers of VQA v2 are under CC BY 4.0 (visualqa.org). Their pictures are COCO's, which does
not own them: Flickr's terms of use apply to each (cocodataset.org). The suite's own picture world is free of both."""


def model_card(model: VQAModel, facts: Mapping[str, Any], name: str) -> str:
    """Write the card, YAML and Markdown. facts: any of `TRAINING`, and `metrics`, values 0..1 by name."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics: Mapping[str, float] = facts.get("metrics") or {}
    known = {metric: METRICS[metric] for metric in METRICS if metric in metrics}
    dataset = " ".join(str(facts.get("dataset") or "VQA").split())
    task_and_dataset = ("visual-question-answering", re.sub(r"\W+", "-", dataset), dataset)
    results = [
        EvalResult(*task_and_dataset, kind, metrics[metric], metric_name=words)
        for metric, (words, kind) in known.items()
    ]
    data = ModelCardData(
        language="en", library_name="transformers", pipeline_tag="visual-question-answering", model_name=name,
        tags=["vqa", "tunematrix", model.config.fusion], eval_results=results or None, ignore_metadata_errors=False,
    )  # fmt: skip
    training = [(words, show(facts[fact])) for fact, (words, show) in TRAINING.items() if facts.get(fact) is not None]
    scores = [(words, f"{100 * metrics[metric]:.2f} %") for metric, (words, _) in known.items()]
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {_plain(name)}",
        "Answers questions about pictures. " + _about(model),
        _section("Evaluation", ["metric", "value"], scores),
        _section("Training", ["", ""], training),
        "## Use\n\n" + _USE.format(name=name, word=shlex.quote(name)),
        "## Limits\n\n" + _LIMITS.format(answers=model.config.num_labels),
        "## Licences of the data\n\n" + _LICENCES,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _about(model: VQAModel) -> str:
    config = model.config
    vision, text = config.vision_config, config.text_config
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"A {vision.model_type} picture encoder ({vision.num_hidden_layers} layers, width {vision.hidden_size}) and a "
        f"{text.model_type} text encoder ({text.num_hidden_layers} layers, width {text.hidden_size}) are joined by "
        f"`{config.fusion}`; {count:,} parameters in all."
    )


def _section(title: str, columns: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [columns, ["---", "---:"], *rows]
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(map(_plain, line)) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text from elsewhere as one line that Markdown takes literally."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", flat) if re.search(r"[^-:]", flat) else flat
