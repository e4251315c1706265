"""What a paper says of a sweep beyond its tables: data, model, machine and what must not be concluded."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from matplotlib.image import imread

from report.frames.disturbed import left_out
from report.frames.sidecars import SAFE_NAME, SidecarFiles
from report.frames.units import cell, count, three_digits
from report.paper.cards import KINDS, Card, read_card
from report.paper.tex import Tex, escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from report.frames.compare import Comparison

FEW_SEEDS: Final = 3
MAX_DISTURBED: Final = 6
MANY_SEEDS: Final = 10
FEW_QUESTIONS: Final = 1000
RANDOM: Final = "towers=random"
PICTURES: Final = 6
ANSWERS: Final = 3
WORLD: Final = "picture-world"
PICTURE_KINDS: Final = (".png", ".jpg", ".jpeg")  # that pdflatex can show
EXAMPLES: Final = "examples/examples.json"
PACKAGES: Final = ("torch", "transformers", "peft", "bitsandbytes")
VISION: Final = ("model_type", "num_hidden_layers", "hidden_size", "patch_size", "image_size")
TEXT: Final = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")
FINGERPRINT: Final = re.compile(r"model \w+$")
LOSSES: Final = {
    "single_label_classification": "cross-entropy on the most frequent answer",
    "multi_label_classification": "binary cross-entropy of every answer against the accuracy it would have",
}
PARTS: Final = {"vision": "image encoder", "text": "text encoder", "fusion": "fusion", "head": "answer head"}


def cards_of(sidecars: SidecarFiles) -> dict[str, list[Card]]:
    """Cards of the sweep's strategies by kind, in the order of KINDS; kinds that are not known come last."""
    given = sidecars.json("strategies.json", dict)
    cards = [read_card(name, facts) for name, facts in sorted(given.items()) if isinstance(facts, dict)]
    kinds = [*KINDS, *sorted({card.kind for card in cards} - set(KINDS))]
    return {
        KINDS.get(kind, kind or "Others"): found for kind in kinds if (found := [c for c in cards if c.kind == kind])
    }


def model_facts(sidecars: SidecarFiles, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """What model.json says: encoders, fusion, parameters and operations by part, and the picture.

    Empty without it, for a model that is not of an image and a text encoder, and where the sweep has several models, of
    which the file describes the last that ran.
    """
    return sidecars.parse(
        "model.json", lambda: _model(sidecars.json("model.json", dict), len(models_of(comparisons))), {}
    )


def _model(model: Mapping[str, Any], models: int) -> dict[str, Any]:
    configuration: Mapping[str, Any] = model.get("configuration") or {}
    vision, text = configuration.get("vision_config", {}), configuration.get("text_config", {})
    if not (set(VISION) <= set(vision) and set(TEXT) <= set(text)) or models > 1:
        return {}
    parameters, flops = model.get("parameters", {}), model.get("flops") or {}
    rows = [
        (words, count(float(parameters.get(part, math.nan))), f"{flops[part] / 1e9:.3f}" if part in flops else "")
        for part, words in {**PARTS, "all": "whole model"}.items()
    ]
    return {
        "vision": vision, "text": text, "words_known": f"{text['vocab_size']:,}",
        "fusion": str(configuration.get("fusion", "")).replace("_", " "),
        "layers": configuration.get("fusion_layers"), "width": configuration.get("fusion_dim"),
        "answers": len(configuration.get("id2label", {})), "rows": rows, "words": model.get("words"),
        "parameters": count(float(parameters.get("all", math.nan))), "counted": bool(flops),
        "loss": LOSSES.get(str(configuration.get("problem_type")), ""),
        "random": not all(model.get("pretrained", {}).values()),
        "diagram": Tex((model.get("diagram") or {}).get("tikz", "")),
    }  # fmt: skip


def models_of(comparisons: Sequence[Comparison]) -> set[tuple[str, str]]:
    """The models of a sweep: their names, and the fingerprint at the end of a setting where there is one."""
    return {(c.setting["model"], (FINGERPRINT.search(c.setting["setting"]) or [""])[0]) for c in comparisons}


def has_random_encoders(comparisons: Sequence[Comparison], model: Mapping[str, Any]) -> bool:
    """Whether a setting or the model's description says that an encoder starts from random weights."""
    return bool(model.get("random")) or any(RANDOM in comparison.setting["setting"] for comparison in comparisons)


def data_facts(sidecars: SidecarFiles, comparison: Comparison) -> dict[str, Any]:
    """How much of which data: pictures, training examples, questions of the evaluation, and a few examples."""
    shown: list[dict[str, Any]] = []
    chosen, examples = sidecars.json("chosen_images.json", list), sidecars.json(EXAMPLES, list)
    for number, example in enumerate(examples[:PICTURES]):
        if isinstance(example, dict):
            shown += sidecars.parse(EXAMPLES, partial(_example, sidecars.folder, number, example), [])
    samples = comparison.runs["train_samples"].dropna()
    paired = comparison.paired["num_questions"].dropna()
    name = comparison.setting["dataset"]
    return {
        "name": name, "made_up": name.startswith(WORLD), "pictures": len(chosen) if chosen else None,
        "vqa": comparison.score == "vqa_accuracy", "sampled": "fraction=" in comparison.setting["setting"],
        "samples": int(samples.max()) if len(samples) else None,
        "questions": int(paired.max()) if len(paired) else None,
        "examples": shown,
    }  # fmt: skip


def _example(folder: Path, number: int, example: Mapping[str, Any]) -> list[dict[str, Any]]:
    given = [str(answer) for answer in example.get("answers", [])]
    often = sorted(set(given), key=lambda answer: (-given.count(answer), answer))[:ANSWERS]
    name = str(example.get("image", ""))
    picture = folder / "examples" / name
    shown = bool(SAFE_NAME.fullmatch(name)) and picture.suffix in PICTURE_KINDS and _is_decodable(picture)
    return [{
        "picture": picture if shown else None, "file": Tex(f"figures/example-{number}{picture.suffix}"),
        "question": example.get("question", ""),
        "answers": ", ".join(f"{answer} ({given.count(answer)})" for answer in often),
    }]  # fmt: skip


def _is_decodable(picture: Path) -> bool:
    """Whether a picture is there and can be decoded: LaTeX stops at one that cannot."""
    try:
        imread(picture)
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def machine(comparison: Comparison, sidecars: SidecarFiles) -> dict[str, str]:
    """Device, threads, numbers, and the versions that the record of a finished run names."""
    setting = comparison.setting
    ids = [run_id for run_id in comparison.finished["run_id"].head(1) if SAFE_NAME.fullmatch(run_id)]
    processor, versions = "", ""
    for run_id in ids:
        name = f"runs/{run_id}/record.json"
        processor, versions = sidecars.parse(name, partial(_environment, sidecars.json(name, dict)), ("", ""))
    precision = sorted({text for text in comparison.runs["precision"] if text})
    return {
        "device": f"one {setting['gpu_name']}" if setting["gpu_name"] else f"a CPU{processor}",
        "threads": setting["num_threads"], "batch": setting["batch_size"], "precision": ", ".join(precision),
        "versions": versions,
        "epochs": _spread(comparison, "epochs"), "steps": _spread(comparison, "steps"),
        "seeds": ", ".join(sorted({cell(seed) for seed in comparison.runs["seed"].dropna()}, key=float)),
    }  # fmt: skip


def _environment(record: Mapping[str, Any]) -> tuple[str, str]:
    """Processor and versions of a record, as far as it names them."""
    environment = record.get("environment", {})
    packages = environment.get("packages", {})
    processor = f" ({environment['processor']})" if environment.get("processor") else ""
    return processor, ", ".join(f"{name} {packages[name]}" for name in PACKAGES if name in packages)


def _spread(comparison: Comparison, column: str) -> str:
    """The value that finished runs share, or the lowest and highest."""
    values = sorted({float(value) for value in comparison.finished[column].dropna()})
    return " to ".join(dict.fromkeys(_short(value) for value in (values[0], values[-1]))) if values else ""


def _short(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else three_digits(value)


def other_work(comparisons: Sequence[Comparison]) -> str:
    """Whether others used the machine meanwhile, where that was recorded, and which times are left out."""
    rows = [row for comparison in comparisons for row in comparison.disturbed.to_dict("records")]
    if rows:
        named = "; ".join(f"{row['entry']} (seed {row['seed']:g}): {row['disturbed']}" for row in rows[:MAX_DISTURBED])
        more = f"; and {len(rows) - MAX_DISTURBED} more" if len(rows) > MAX_DISTURBED else ""
        return f"{left_out(len(rows))}: {named}{more}."
    if all(comparison.finished["other_cpu_share"].notna().all() for comparison in comparisons):
        return "What others did on the machine was recorded for every run, and disturbed none."
    return (
        "The machine may have done other work beside; ratios to the baseline of the same seed suffer less than times."
    )


def threats(comparisons: Sequence[Comparison], model: Mapping[str, Any], data: Mapping[str, Any]) -> list[Tex]:
    """What a reader must not conclude, as far as the figures themselves tell."""
    runs = [comparison.runs for comparison in comparisons]
    seeds = min(frame["seed"].nunique() for frame in runs)
    sentences = []
    if seeds < FEW_SEEDS:
        number = "One seed was" if seeds <= 1 else "Two seeds were"
        sentences.append(f"{number} run: differences between recipes cannot be told from those between seeds.")
    elif seeds < MANY_SEEDS:
        sentences.append(
            f"{seeds} seeds were run: intervals over so few are wide, and differences within them are left open."
        )
    if data["questions"] and data["questions"] < FEW_QUESTIONS:
        wide = 100 * 1.96 * math.sqrt(0.25 / data["questions"])
        sentences.append(
            f"Only {data['questions']} questions are evaluated: the 95 % interval of a score may reach {wide:.0f} "
            "points to either side."
        )
    if has_random_encoders(comparisons, model):
        sentences.append("Encoders start from random weights, so scores are not those of fine-tuning pretrained ones.")
    if data["made_up"]:
        sentences.append(
            "The pictures are generated and the questions follow patterns: scores say nothing about photographs."
        )
    if any(comparison.setting["device"] == "cpu" for comparison in comparisons):
        sentences.append(
            "Times were taken on a CPU; on a GPU other recipes are fast, and memory beside the allocator's differs."
        )
    sentences.append(other_work(comparisons))
    if model:
        size = f"The model has {model['parameters']} parameters"
        sentences.append(f"{size}; what a recipe saves depends on what holds the memory, which changes with size.")
    tuned = any((frame["tuned_rates"] != "").any() for frame in runs)
    sentences.append(
        "Each recipe has the best of a few learning rates that were tried with one seed on the tune set."
        if tuned
        else "No learning rate was searched for; at another rate a recipe may do better or worse."
    )
    return [escape(sentence) for sentence in sentences]
