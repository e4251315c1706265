"""The work of `vqa_model.inspect`: reads a folder, prints what is in it, and draws it where that is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vqa_model.data.mounted_files import mounted_data
from vqa_model.data.official_files import PARTS, annotation_file, question_file, read_download, read_part
from vqa_model.inspection.facts import ANNOTATORS, inspect_part
from vqa_model.inspection.plots import draw_all
from vqa_model.picture_world.files import world_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vqa_model.data.official_files import Part

SHOWN = 10
NO_WORD = "(nothing)"  # what the normal form leaves of "the"


def inspect_data(options: argparse.Namespace) -> None:
    """Inspect a folder. ValueError for one that cannot be read."""
    folder = mounted_data() if str(options.data) == "kaggle" else options.data or world_folder()
    parts = read_parts(folder)
    first = next(iter(parts))
    facts = {name: inspect_part(part, parts[first].questions, decode=options.all) for name, part in parts.items()}
    downloaded = read_download(folder)
    for name in [name for name in PARTS if name not in parts]:
        print(f"{name}: no questions and annotations in {folder}; vocabularies are of the answers of {first}")
    for name, found in facts.items():
        print_part(name, found, first)
    if downloaded:
        print(f"\ndownload.json: pictures of fraction {downloaded['fraction']:g} and eval_fraction "
              f"{downloaded['eval_fraction']:g} were fetched; the others are missing on purpose")  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        print(f"\nfacts: {options.json}")
    if options.plots:
        draw_all(facts, options.plots)
        print(f"\nfigures: {options.plots}")


def read_parts(folder: Path) -> dict[str, Part]:
    """Read the parts that are there; where none is, the reader's ValueError says what is missing."""
    files = {name: (question_file(folder, name), annotation_file(folder, name)) for name in PARTS}
    there = [name for name in PARTS if any(file.exists() for file in files[name])]
    return {name: read_part(folder, name) for name in there or PARTS}


def print_part(name: str, facts: Mapping[str, Any], vocabulary: str) -> None:
    """Print the tables of one part; `vocabulary` is the part whose answers make vocabularies."""
    pictures, words, agreed = facts["pictures"], facts["words"], facts["agreement"]
    print(f"\n{name}: {facts['questions']:,} questions on {pictures['asked about']:,} pictures\n")
    table("answer types", [[kind, percent(share)] for kind, share in facts["answer types"].items()])
    top = facts["top answers"].items()
    rows = [[word or NO_WORD, percent(share)] for word, share in top]
    table(f"top answers of {facts['distinct majority answers']:,}", rows)
    sized = facts["coverage"]["by size"].items()
    table("answers known to a vocabulary of …", [[f"{int(size):,}", percent(share)] for size, share in sized])
    counted = facts["coverage"]["by count"].items()
    table(
        f"… of those seen in {vocabulary} at least",
        [[f"{least} ×", f"{found['answers']:,} answers", percent(found["share"])] for least, found in counted],
    )
    starts = list(words["begin with"].items())[:SHOWN]
    table("questions begin with", [[start, percent(share)] for start, share in starts])
    print(f"words in a question: mean {words['mean']:.1f}, median {words['median']:.0f}, "
          f"99 % have at most {words['p99']:.0f}, longest {words['longest']}\n")  # fmt: skip
    table(
        "annotators of ten who gave the majority answer",
        [[str(n), percent(agreed["gave the majority answer"][n])] for n in range(ANNOTATORS, 0, -1)],
    )
    print(f"official accuracy: one person against the others {percent(agreed['one person against the others'])}, "
          f"always \"yes\" {percent(agreed['always yes'])}\n")  # fmt: skip
    if pairs := facts["pairs"]:
        print(f"balanced pairs: {pairs['pairs']:,}, both questions here {pairs['both here']:,}; "
              f"{percent(pairs['questions with a partner'])} of the questions have a partner, "
              f"answers differ in {percent(pairs['answers differ'])}\n")  # fmt: skip
    table(f"sizes of {pictures['looked at']:,} pictures", [[size, f"{n:,}"] for size, n in pictures["sizes"][:SHOWN]])
    print(f"grey {percent(pictures['grey'])}; missing {pictures['missing']:,}; broken {pictures['broken']:,} "
          f"of {pictures['looked at']:,} looked at")  # fmt: skip
    for what in ("missing", "broken"):
        for line in pictures[f"first {what}"]:
            print(f"  {what}: {line}")


def percent(share: float) -> str:
    """Write a share as percent."""
    return f"{100 * share:.1f} %"


def table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Print aligned rows under a title."""
    print(title)
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []
    for row in rows:
        first, *rest = zip(row, widths, strict=True)
        print("  " + "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)]))
    print()
