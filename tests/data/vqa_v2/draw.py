"""Draw the sample of VQA v2 that lies beside this script from a larger slice of it; README.md says what is in both.

python tests/data/vqa_v2/draw.py FOLDER_OF_THE_SLICE
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

Row = dict[str, Any]

HERE: Final = Path(__file__).resolve().parent
SEED: Final = 2017
QUESTIONS: Final = "v2_OpenEnded_mscoco_{}2014_questions.json"
ANNOTATIONS: Final = "v2_mscoco_{}2014_annotations.json"
EVALUATED: Final = "official_eval_golden.json"
NORMALISED: Final = "official_norm_golden.json"
KINDS: Final = {  # what the official normalisation looks at, or a reader of texts stumbles on
    "nothing": r"^\s*$",
    "capitals": r"[A-Z]",
    "article": r"(?i)\b(a|an|the)\b",
    "number word": r"(?i)\b(none|zero|one|two|three|four|five|six|seven|eight|nine|ten)\b",
    "contraction": r"(?i)\w'\w|\b(im|ive|youre|thats|whats|(do|does|did|is|are|was|can|could|would)nt)\b",
    "point": r"\.",
    "comma": r",",
    "thousands": r"\d,\d",
    "other marks": r"[^\w\s.',]",
    "white space": r"^\s|\s$|\s\s",
}


def kinds(text: str) -> frozenset[str]:
    """Every kind that a text is of."""
    return frozenset(kind for kind, pattern in KINDS.items() if re.search(pattern, text))


def some(rows: Iterable[Row], groups: Callable[[Row], Iterable[Hashable]], count: int) -> Iterator[Row]:
    """Draw at most `count` rows of each group; a row may be in several."""
    found: dict[Hashable, list[Row]] = {}
    for row in rows:
        for group in groups(row):
            found.setdefault(group, []).append(row)
    chance = random.Random(SEED)
    for members in found.values():
        yield from chance.sample(members, min(count, len(members)))


def chosen_images(questions: list[Row], annotations: list[Row], golden: Row) -> set[int]:
    """Pictures whose questions show every rare case; all of a picture's questions go with it."""
    known = {row["question_id"]: row for row in annotations}
    scored = [known[row["question_id"]] | row for row in golden["predictions"]]
    score = golden["per_question"]
    given = lambda row: {kind for answer in row["answers"] for kind in sorted(kinds(answer["answer"]))}
    of = lambda row: score[str(row["question_id"])]
    drawn = [
        *some(scored, lambda row: [(row["answer_type"], of(row), kinds(row["answer"]))], 2),
        *some(scored, lambda row: [(of(row), kind) for kind in sorted(given(row))], 5),
        *some(annotations, lambda row: [row["question_type"]], 2),
    ]
    asked: dict[int, list[Row]] = {}
    wordings: dict[str, list[Row]] = {}
    for row in questions:
        asked.setdefault(row["image_id"], []).append(row)
        wordings.setdefault(row["question"], []).append(row)
    drawn += [rows[0] for rows in asked.values() if len(rows) >= 6]
    drawn += next(rows for rows in wordings.values() if len(rows) == max(map(len, wordings.values())))
    return {row["image_id"] for row in drawn}


def sample(folder: Path) -> dict[str, Any]:
    """Content of every file of the sample, by name, from the folder of the slice."""
    read = lambda name: json.loads((folder / name).read_text(encoding="utf-8"))
    content = {
        form.format(part): read(form.format(part)) for part in ("train", "val") for form in (QUESTIONS, ANNOTATIONS)
    }
    with gzip.open(folder / "extra" / f"{EVALUATED}.gz") as stream:
        golden = json.load(stream)
    asked, annotated = content[QUESTIONS.format("train")], content[ANNOTATIONS.format("train")]
    images = chosen_images(asked["questions"], annotated["annotations"], golden)
    asked["questions"] = [row for row in asked["questions"] if row["image_id"] in images]
    annotated["annotations"] = [row for row in annotated["annotations"] if row["image_id"] in images]
    kept = {row["question_id"] for row in asked["questions"]}
    golden["predictions"] = [row for row in golden["predictions"] if row["question_id"] in kept]
    golden["per_question"] = {key: value for key, value in golden["per_question"].items() if int(key) in kept}
    for part in content.values():
        part["info"]["description"] = "A sample of VQA v2.0, see README.md; not the full release."
    return content | {EVALUATED: golden, NORMALISED: read(f"extra/{NORMALISED}")}


def main() -> None:
    """Write the sample and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="slice of VQA v2 in the official layout, with extra/official_*.json")
    for name, content in sample(parser.parse_args().folder).items():
        packed = gzip.compress(json.dumps(content, ensure_ascii=False).encode(), mtime=0)
        (HERE / f"{name}.gz").write_bytes(packed)
        rows = content if isinstance(content, list) else max(content.values(), key=len)
        print(f"{name}.gz: {len(rows)} rows, {len(packed):,} bytes")


if __name__ == "__main__":
    main()
