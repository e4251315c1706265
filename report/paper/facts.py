"""What a paper says of a sweep beyond its tables: data, model, machine and what must not be concluded."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from report import ReportError
from report.paper.cards import KINDS, Card, read_card
from report.paper.tex import Tex, escape
from report.units import cell, count, three_digits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from report.compare import Comparison

FEW_SEEDS: Final = 3
PICTURES: Final = 6
ANSWERS: Final = 3
WORLD: Final = "picture-world"
LOSSES: Final = {
    "single_label_classification": "cross-entropy on the most frequent answer",
    "multi_label_classification": "binary cross-entropy of every answer against the accuracy it would have",
}
PARTS: Final = {"vision": "image encoder", "text": "text encoder", "fusion": "fusion", "head": "answer head"}


def side_file(folder: Path, name: str) -> Any:
    """Read a JSON file beside the CSVs, None where there is none; ReportError where it is damaged."""
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{path}: not readable as JSON ({error}); start the sweep again with the same --out"
        ) from error


def cards_of(folder: Path) -> dict[str, list[Card]]:
    """Cards of the sweep's strategies by kind, in the order of KINDS; kinds that are not known come last."""
    given: Mapping[str, Any] = side_file(folder, "strategies.json") or {}
    cards = [read_card(name, facts) for name, facts in sorted(given.items())]
    kinds = [*KINDS, *sorted({card.kind for card in cards} - set(KINDS))]
    return {
        KINDS.get(kind, kind or "Others"): found for kind in kinds if (found := [c for c in cards if c.kind == kind])
    }


def model_facts(folder: Path) -> dict[str, Any]:
    """What model.json says: encoders, fusion, parameters and operations by part, and the picture; empty without it."""
    model: Mapping[str, Any] = side_file(folder, "model.json") or {}
    configuration: Mapping[str, Any] = model.get("configuration") or {}
    if not configuration:
        return {}
    vision, text = configuration.get("vision_config", {}), configuration.get("text_config", {})
    parameters, flops = model.get("parameters", {}), model.get("flops") or {}
    rows = [
        (words, count(float(parameters.get(part, math.nan))), f"{flops[part] / 1e9:.3f}" if part in flops else "")
        for part, words in {**PARTS, "all": "whole model"}.items()
    ]
    return {
        "vision": vision, "text": text, "fusion": str(configuration.get("fusion", "")).replace("_", " "),
        "layers": configuration.get("fusion_layers"), "width": configuration.get("fusion_dim"),
        "answers": len(configuration.get("id2label", {})), "rows": rows, "words": model.get("words"),
        "parameters": count(float(parameters.get("all", math.nan))), "counted": bool(flops),
        "loss": LOSSES.get(str(configuration.get("problem_type")), ""),
        "diagram": Tex((model.get("diagram") or {}).get("tikz", "")),
    }  # fmt: skip


def data_facts(folder: Path, comparison: Comparison) -> dict[str, Any]:
    """How much of which data: pictures, training examples, questions of the evaluation, and a few examples."""
    chosen = side_file(folder, "chosen_images.json")
    examples = side_file(folder / "examples", "examples.json") or []
    samples = comparison.runs["train_samples"].dropna()
    paired = comparison.paired["num_questions"].dropna()
    name = comparison.setting["dataset"]
    return {
        "name": name, "made_up": name.startswith(WORLD), "pictures": len(chosen) if chosen else None,
        "samples": int(samples.max()) if len(samples) else None,
        "questions": int(paired.max()) if len(paired) else None,
        "examples": [_example(folder, number, example) for number, example in enumerate(examples[:PICTURES])],
    }  # fmt: skip


def _example(folder: Path, number: int, example: Mapping[str, Any]) -> dict[str, Any]:
    given = [str(answer) for answer in example.get("answers", [])]
    often = sorted(set(given), key=lambda answer: (-given.count(answer), answer))[:ANSWERS]
    picture = folder / "examples" / str(example.get("image", ""))
    return {
        "picture": picture if picture.is_file() else None, "file": Tex(f"figures/example-{number}{picture.suffix}"),
        "question": example.get("question", ""),
        "answers": ", ".join(f"{answer} ({given.count(answer)})" for answer in often),
    }  # fmt: skip


def machine(comparison: Comparison, folder: Path) -> dict[str, str]:
    """Device, threads, numbers, and the versions that the first run's record names."""
    setting = comparison.setting
    records = [side_file(folder / "runs" / run_id, "record.json") for run_id in comparison.runs["run_id"].head(1)]
    environment: Mapping[str, Any] = next(
        (record["environment"] for record in records if record and "environment" in record), {}
    )
    packages = environment.get("packages", {})
    processor = f" ({environment['processor']})" if environment.get("processor") else ""
    names = ("torch", "transformers", "peft", "bitsandbytes")
    precision = sorted({text for text in comparison.runs["precision"] if text})
    return {
        "device": f"one {setting['gpu_name']}" if setting["gpu_name"] else f"a CPU{processor}",
        "threads": setting["num_threads"], "batch": setting["batch_size"], "precision": ", ".join(precision),
        "versions": ", ".join(f"{name} {packages[name]}" for name in names if name in packages),
        "epochs": _spread(comparison, "epochs"), "steps": _spread(comparison, "steps"),
        "seeds": ", ".join(sorted({cell(seed) for seed in comparison.runs["seed"]}, key=float)),
    }  # fmt: skip


def _spread(comparison: Comparison, column: str) -> str:
    """The value that finished runs share, or the lowest and highest."""
    values = sorted({float(value) for value in comparison.finished[column].dropna()})
    return " to ".join(dict.fromkeys(_short(value) for value in (values[0], values[-1]))) if values else ""


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else three_digits(value)


def threats(comparisons: Sequence[Comparison], model: Mapping[str, Any], data: Mapping[str, Any]) -> list[Tex]:
    """What a reader must not conclude, as far as the figures themselves tell."""
    runs = [comparison.runs for comparison in comparisons]
    seeds = min(frame["seed"].nunique() for frame in runs)
    said = []
    if seeds < FEW_SEEDS:
        number = "One seed was" if seeds == 1 else "Two seeds were"
        said.append(f"{number} run: differences between recipes cannot be told from those between seeds.")
    else:
        said.append(
            f"{seeds} seeds were run: intervals over so few are wide, and differences within them are left open."
        )
    if data["made_up"]:
        said.append(
            "The pictures are generated and the questions follow patterns: scores say nothing about photographs."
        )
    if any(comparison.setting["device"] == "cpu" for comparison in comparisons):
        said.append(
            "Times were taken on a CPU; on a GPU other recipes are fast, and memory beside the allocator's differs."
        )
    said.append(
        "Times are of one machine that may have done other work; ratios to the baseline of the same seed suffer less."
    )
    if model:
        size = f"The model has {model['parameters']} parameters"
        said.append(f"{size}; what a recipe saves depends on what holds the memory, which changes with size.")
    said.append("Each recipe has its default learning rate unless a table says otherwise; another rate moves scores.")
    return [escape(sentence) for sentence in said]
