"""What a model is made of: parameters and operations of each part, from its configuration alone.

The model is built on `meta`, where tensors have shapes and no values, so a model of any size is described in a second.
Operations are those of one forward pass, counted by torch as two for each multiplication with addition.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from vqa_model.modeling.config import make_config
from vqa_model.modeling.diagram import draw, to_svg, to_tikz
from vqa_model.modeling.fusion.registry import FUSIONS
from vqa_model.modeling.towers import find_tower
from vqa_model.modeling.vqa import VQAModel

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from vqa_model.modeling.vqa import VQAConfig

DEFAULT_WORDS = 20  # word pieces of the question that is counted
PARTS = ("vision", "text", "fusion", "head")


class PartCounts(NamedTuple):
    """Parameters of a part of the model, and operations of one pass for one question on one picture."""

    parameters: int
    flops: int


def count_parts(config: VQAConfig, words: int = DEFAULT_WORDS) -> dict[str, PartCounts]:
    """Count every part and `all`, for a question of `words` pieces."""
    with torch.device("meta"):
        model = VQAModel(config).eval()
        size = model.config.vision_config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        inputs = {
            "pixel_values": torch.empty(1, 3, height, width),
            "input_ids": torch.zeros(1, words, dtype=torch.long),
            "attention_mask": torch.ones(1, words, dtype=torch.long),
        }
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            model(**inputs)
    by_module = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    flops = {name: by_module.get(f"{type(model).__name__}.{name}", 0) for name in PARTS}
    found = {name: PartCounts(count(getattr(model, name)), flops[name]) for name in PARTS}
    return {**found, "all": PartCounts(count(model), by_module["Global"])}


def count(module: torch.nn.Module) -> int:
    """Number of parameters; one that is used twice counts once."""
    return sum(parameter.numel() for parameter in module.parameters())


def describe_model(config: VQAConfig) -> dict[str, Any]:
    """Configuration, parameters of every module, and operations of each part, for the report."""
    with torch.device("meta"):
        model = VQAModel(config)
    parts = count_parts(config)
    counts = {name or "all": count(module) for name, module in model.named_modules()}
    diagram = draw(config, {name: part.parameters for name, part in parts.items()})
    configuration = config.to_diff_dict()
    for tower in ("vision_config", "text_config"):
        configuration[tower].pop("_name_or_path", None)  # where it lay says nothing about what it is
    return {
        "configuration": configuration,
        "parameters": {name: number for name, number in counts.items() if number},
        "words": DEFAULT_WORDS,
        "flops": {name: part.flops for name, part in parts.items()},
        "diagram": {**asdict(diagram), "svg": to_svg(diagram), "tikz": to_tikz(diagram)},
    }


def describe(options: argparse.Namespace) -> None:
    """Print the table or JSON of `vqa_model.describe`, and draw the diagram. ValueError for what there is not."""
    towers = {kind: find_tower(kind, options.model, getattr(options, kind), random=True) for kind in ("vision", "text")}
    if options.words < 1 or options.answers < 1:
        raise ValueError(f"--words {options.words} --answers {options.answers}: a question and its answers, 1 or more")
    answers = [str(number) for number in range(options.answers)]
    if options.diagram and (options.fusion == "all" or options.diagram.suffix not in WRITERS):
        raise ValueError(f"--diagram {options.diagram}: draws one --fusion, as {' or '.join(WRITERS)}")
    fusions = list(FUSIONS) if options.fusion == "all" else [options.fusion]
    configs = {fusion: make_config(options.model, towers, fusion, answers) for fusion in fusions}
    longest = min(config.text_config.max_position_embeddings for config in configs.values())
    if options.words > longest:
        raise ValueError(f"--words {options.words}: the text tower takes at most {longest} word pieces")
    found = {fusion: count_parts(config, options.words) for fusion, config in configs.items()}
    if options.json:
        print(
            json.dumps(
                {fusion: {k: v._asdict() for k, v in parts.items()} for fusion, parts in found.items()}, indent=1
            )
        )
    else:
        print_parts(found, options.words)
    if options.diagram:
        diagram = draw(configs[options.fusion], {name: part.parameters for name, part in found[options.fusion].items()})
        options.diagram.write_text(WRITERS[options.diagram.suffix](diagram), encoding="utf-8")


def print_parts(found: Mapping[str, Mapping[str, PartCounts]], words: int) -> None:
    """Print one model's parts, or how several differ: fusion and head, and their share of the whole."""
    if len(found) == 1:
        ((fusion, parts),) = found.items()
        columns, rows = ["part", "parameters", "FLOPs"], [[name, *_formatted(part)] for name, part in parts.items()]
        rows = [[f"{row[0]} ({fusion})" if row[0] == "fusion" else row[0], *row[1:]] for row in rows]
    else:
        columns = ["fusion", "parameters with head", "share", "FLOPs with head", "share", "whole model"]
        rows = []
        for fusion, parts in found.items():
            fusion_and_head = PartCounts(*(a + b for a, b in zip(parts["fusion"], parts["head"], strict=True)))
            shares = [f"{100 * a / b:.1f} %" for a, b in zip(fusion_and_head, parts["all"], strict=True)]
            formatted = _formatted(fusion_and_head)
            rows.append([fusion, formatted[0], shares[0], formatted[1], shares[1], _formatted(parts["all"])[0]])
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        first, *rest = zip(row, widths, strict=True)
        print("  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]).rstrip())
    print(f"\nFLOPs of one forward pass: one picture, one question of {words} word pieces")


def _formatted(part: PartCounts) -> list[str]:
    return [f"{part.parameters:,}", f"{part.flops / 1e9:.3f} G"]


WRITERS = {".svg": to_svg, ".tex": to_tikz}
