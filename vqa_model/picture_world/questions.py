"""Questions over the picture world, balanced as in VQA v2, with ten answers each.

A question is a small tuple `(kind, *words)`; `answer` looks it up in a scene, or says None where
it makes no sense (two stars, and "the star"). `ask_pair` keeps only questions that make sense on
*both* pictures of a similar pair and have *different* answers there: knowing the question alone
then never tells which. Annotators disagree on some questions, as people do.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, Any

from vqa_model.picture_world.scenes import COLORS, SHAPES, SIZES, Scene, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

Question = tuple[str, ...]
_NUMBERS = tuple(str(number) for number in range(7))
ANSWER_TYPES = {"yes/no": 0.38, "number": 0.14, "other": 0.48}  # shares of the questions drawn
# kind: (wording, question type, answer type, share within it, what a mistaken annotator may say)
KINDS: dict[str, tuple[str, str, str, float, tuple[str, ...]]] = {
    "color": ("What color is the {0}?", "what color is the", "other", 4.0, tuple(COLORS)),
    "shape": ("What shape is the {0} object?", "what", "other", 3.0, SHAPES),
    "size": ("What size is the {0}?", "what", "other", 1.0, tuple(SIZES)),
    "any_shape": ("Is there a {0}?", "is there a", "yes/no", 0.7, ("yes", "no")),
    "any_color": ("Is there a {0} object?", "is there a", "yes/no", 1.0, ("yes", "no")),
    "exists": ("Is there a {0} {1}?", "is there a", "yes/no", 1.0, ("yes", "no")),
    "is_color": ("Is the {0} {1}?", "is the", "yes/no", 2.0, ("yes", "no")),
    "count_shape": ("How many {0}s are there?", "how many", "number", 0.7, _NUMBERS),
    "count_color": ("How many {0} objects are there?", "how many", "number", 1.0, _NUMBERS),
}


def candidates() -> Iterator[Question]:
    """Every question that can be asked in this world."""
    for shape in SHAPES:
        yield from ((kind, shape) for kind in ("color", "size", "count_shape", "any_shape"))
    for color in COLORS:
        yield from ((kind, color) for kind in ("shape", "count_color", "any_color"))
    yield from (("exists", color, shape) for color, shape in product(COLORS, SHAPES))
    yield from (("is_color", shape, color) for shape, color in product(SHAPES, COLORS))


def _about_one(kind: str, words: tuple[str, ...], scene: Scene) -> str | None:
    """Answer a question on the one thing it names; None when there is not exactly one."""
    feature = "color" if kind == "shape" else "shape"
    things = [thing for thing in scene if getattr(thing, feature) == words[0]]
    if len(things) != 1:
        return None
    if kind == "is_color":
        return "yes" if things[0].color == words[1] else "no"
    return str(getattr(things[0], kind))


def answer(question: Question, scene: Scene) -> str | None:
    """Tell the true answer, or None where the question makes no sense on this scene."""
    kind, *rest = question
    words = tuple(rest)
    if kind == "exists":
        return "yes" if any((thing.color, thing.shape) == words for thing in scene) else "no"
    if kind.startswith("any_"):
        return "yes" if any(getattr(thing, kind[4:]) == words[0] for thing in scene) else "no"
    if kind.startswith("count_"):
        return str(sum(getattr(thing, kind[6:]) == words[0] for thing in scene))
    return _about_one(kind, words, scene)


def ask_pair(rng: random.Random, settings: Settings, first: Scene, second: Scene) -> list[Question]:
    """Choose questions with different answers on the two scenes, answer types and kinds drawn by their shares."""
    by_kind: dict[str, list[Question]] = {}
    for question in _CANDIDATES:
        answers = (answer(question, first), answer(question, second))
        if None not in answers and answers[0] != answers[1]:
            by_kind.setdefault(question[0], []).append(question)
    chosen: list[Question] = []
    for answer_type in rng.choices(list(ANSWER_TYPES), list(ANSWER_TYPES.values()), k=rng.randint(*settings.draws)):
        kinds = [kind for kind in by_kind if KINDS[kind][2] == answer_type and by_kind[kind]]
        if kinds:
            kind = rng.choices(kinds, [KINDS[kind][3] for kind in kinds])[0]
            chosen.append(by_kind[kind].pop(rng.randrange(len(by_kind[kind]))))
    return chosen


def wording(question: Question) -> str:
    """Put a question into English."""
    return KINDS[question[0]][0].format(*question[1:])


def annotate(rng: random.Random, settings: Settings, question: Question, truth: str) -> dict[str, Any]:
    """Make the answer fields of an official annotation; the truth is always the majority."""
    _, question_type, answer_type, _, plausible = KINDS[question[0]]
    doubters = rng.randint(1, 4) if rng.random() < settings.disagreement else 0
    words = [rng.choice(plausible) for _ in range(doubters)] + [truth] * (10 - doubters)
    rng.shuffle(words)
    assert Counter(words).most_common(1)[0][0] == truth
    answers = [
        {"answer": word, "answer_confidence": rng.choice(("yes", "yes", "yes", "maybe")), "answer_id": number}
        for number, word in enumerate(words, 1)
    ]
    return {
        "question_type": question_type,
        "multiple_choice_answer": truth,
        "answers": answers,
        "answer_type": answer_type,
    }


_CANDIDATES = tuple(candidates())
