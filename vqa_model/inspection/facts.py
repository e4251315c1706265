"""Facts about a part of a VQA folder, computed on its columns: all of VQA v2 takes seconds.

Every function gives plain numbers and texts, which are printed, drawn and written as JSON alike.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vqa_model.data.answers import build_vocabulary
from vqa_model.data.official_accuracy import ACCURACY
from vqa_model.data.official_files import read_pairs
from vqa_model.data.pictures import BROKEN, read_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from vqa_model.data.official_files import Part
    from vqa_model.data.questions import Questions

SIZES = (100, 500, 1000, 2000, 3129)  # of vocabularies
COUNTS = (1, 2, 3, 5, 9, 20)  # least occurrences of an answer of a vocabulary
TOP, NAMED = 20, 10
SAMPLE = 2000  # pictures whose headers are read
LENGTHS = 25  # words; longer questions count as this many
ANNOTATORS = 10


def shares(codes: NDArray[Any], names: Sequence[str], most: int) -> dict[str, float]:
    """Share of each name among the codes, the most frequent first, at most `most`."""
    counts = np.bincount(codes, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:most]
    return {names[code]: float(counts[code] / len(codes)) for code in order.tolist() if counts[code]}


def coverage(train: Questions, part: Questions) -> dict[str, dict[str, Any]]:
    """Share of a part's questions whose majority answer a vocabulary of `train` knows, by size and by least count."""
    ranked = build_vocabulary(train, min_count=1, max_answers=len(train.pools.forms))
    rank_of = {form: rank for rank, form in enumerate(ranked)}
    ranks, in_train = (
        np.array([rank_of.get(form, len(ranked)) for form in questions.pools.forms])[questions.majority_forms]
        for questions in (part, train)
    )
    counts = np.bincount(in_train, minlength=len(ranked) + 1)[: len(ranked)]  # unknown ones come last
    by_count = {least: int((counts >= least).sum()) for least in COUNTS}
    sizes = [size for size in SIZES if size < len(ranked)] + [len(ranked)]
    return {
        "by size": {str(size): float((ranks < size).mean()) for size in sizes},
        "by count": {str(n): {"answers": size, "share": float((ranks < size).mean())} for n, size in by_count.items()},
    }


def words_of(questions: Questions) -> dict[str, Any]:
    """Question lengths in words, and what questions begin with."""
    lengths_of = np.array([len(text.split()) for text in questions.pools.texts])
    first_of = [text.split(maxsplit=2)[:2] for text in questions.pools.texts]
    lengths = lengths_of[questions.texts]
    counts = np.bincount(questions.texts, minlength=len(first_of)).tolist()
    begun: Counter[str] = Counter()
    for words, count in zip(first_of, counts, strict=True):
        begun[" ".join(words).lower()] += count
    return {
        "mean": float(lengths.mean()), "median": float(np.median(lengths)), "p99": float(np.quantile(lengths, 0.99)),
        "longest": int(lengths.max()), "histogram": np.bincount(np.minimum(lengths, LENGTHS)).tolist(),
        "begin with": {start: count / len(questions) for start, count in begun.most_common(TOP)},
    }  # fmt: skip


def agreement(questions: Questions) -> dict[str, Any]:
    """How many of ten annotators gave the majority answer, and what a person or always "yes" would score.

    Answers are compared in their normal form, as the evaluation does where not all ten are the same to the letter.
    """
    forms = questions.answer_forms
    same = (forms == questions.majority_forms[:, None]).sum(1)
    matching = (forms[:, :, None] == forms[:, None, :]).sum(2) - 1  # others that gave the same answer
    yes = questions.pools.forms.index("yes") if "yes" in questions.pools.forms else -1
    return {
        "gave the majority answer": (np.bincount(same, minlength=ANNOTATORS + 1) / len(questions)).tolist(),
        "one person against the others": float(np.minimum(1, matching / 3).mean()),
        "always yes": float(np.array(ACCURACY)[(forms == yes).sum(1)].mean()),
    }


def pairs_of(part: Part) -> dict[str, Any] | None:
    """Balanced pairs: how many questions have a partner here, and how often their answers differ."""
    pairs = read_pairs(part.folder, part.name)
    if pairs is None or not len(pairs):
        return None
    questions = part.questions
    order = np.argsort(questions.ids)
    found = np.minimum(np.searchsorted(questions.ids, pairs, sorter=order), len(order) - 1)
    rows = order[found]
    here = (questions.ids[rows] == pairs).all(1)
    forms = questions.majority_forms[rows[here]]
    return {
        "pairs": len(pairs), "both here": int(here.sum()),
        "questions with a partner": float(len(np.unique(rows[here])) / len(questions)),
        "answers differ": float((forms[:, 0] != forms[:, 1]).mean()) if here.any() else 0.0,
    }  # fmt: skip


def pictures_of(part: Part, *, decode: bool) -> dict[str, Any]:
    """Missing and broken files, and the sizes of the others: of a sample by their headers, of all where decoded."""
    images = np.unique(part.questions.image_ids).tolist()
    there = [image for image in images if part.picture_path(image).is_file()]
    missing = sorted(set(images) - set(there))
    looked = there if decode else random.Random(0).sample(there, min(SAMPLE, len(there)))
    sizes: list[tuple[int, int]] = []
    grey, broken = 0, []
    for image in looked:
        path = part.picture_path(image)
        try:
            if decode:
                read_picture(path)
            with Image.open(path) as picture:
                sizes.append(picture.size)
                grey += picture.mode == "L"
        except BROKEN as error:
            broken.append(f"{path.name}: {str(error).removeprefix(f'{path}: ')}")
    return {
        "asked about": len(images),
        "missing": len(missing), "first missing": [part.picture_path(image).name for image in missing[:NAMED]],
        "looked at": len(looked), "broken": len(broken), "first broken": broken[:NAMED],
        "grey": grey / max(1, len(sizes)), "sizes": Counter(f"{w} × {h}" for w, h in sizes).most_common(TOP),
        "widths and heights": sizes[:SAMPLE],
    }  # fmt: skip


def inspect_part(part: Part, train: Questions, *, decode: bool) -> dict[str, Any]:
    """All facts about a part; vocabularies are of the answers of `train`."""
    questions = part.questions
    known = shares(train.majority_forms, train.pools.forms, TOP)
    answers = shares(questions.majority_forms, questions.pools.forms, len(questions.pools.forms))
    return {
        "questions": len(questions),
        "pictures": pictures_of(part, decode=decode),
        "answer types": shares(questions.answer_types, questions.pools.answer_types, TOP),
        "top answers": dict(list(answers.items())[:TOP]),
        "top answers of the vocabulary": {answer: answers.get(answer, 0.0) for answer in known},
        "distinct majority answers": len(answers),
        "coverage": coverage(train, questions),
        "words": words_of(questions),
        "agreement": agreement(questions),
        "pairs": pairs_of(part),
    }
