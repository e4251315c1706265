"""The official VQA accuracy, rule by rule (visualqa.org/evaluation), bit for bit.

Written from the published rules and held to outputs of the official evaluator by tests. Two of
its habits surprise: nothing is normalised when all ten annotators agree to the letter, and one
comma between digits makes *every* mark vanish instead of becoming a space.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqa_model.questions import Question

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_LONE_PERIOD = re.compile(r"(?!<=\d)\.(?!\d)")
_MOST_PERIODS = 32
_ARTICLES = {"a", "an", "the"}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
# The contraction table maps each word with one apostrophe left out to the word itself.
_WORDS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_DROPPED = ((word, place) for word in _WORDS.split() for place, letter in enumerate(word) if letter == "'")
CONTRACTIONS = {word[:place] + word[place + 1 :]: word for word, place in _DROPPED}
# The one entry that breaks the rule: the published table turns it around.
CONTRACTIONS["somebody'd"] = "somebodyd"


def strip_punctuation(text: str) -> str:
    """Delete or space out marks, and delete periods that no digit follows."""
    delete_all = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _MARKS:
        near_space = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if near_space or delete_all else " ")
    return _LONE_PERIOD.sub("", result, count=_MOST_PERIODS)


def digits_and_articles(text: str) -> str:
    """Lower-case, write small numbers as digits, drop articles, restore apostrophes."""
    words = [_DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def clean(text: str) -> str:
    """Do what is done to every answer: newline and tab become a space, ends are stripped."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)
def normalise(text: str) -> str:
    """Put an answer into the evaluator's normal form."""
    return digits_and_articles(strip_punctuation(clean(text)))


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Official accuracy, 0..1, of one prediction against the ten annotators' answers."""
    distinct = set(answers)  # most of the ten are the same, and each is looked at once
    form = normalise if len({clean(answer) for answer in distinct}) > 1 else clean
    wanted = form(prediction)
    return ACCURACY[sum(answers.count(answer) for answer in distinct if form(answer) == wanted)]


def evaluate(
    predictions: Sequence[Mapping[str, Any]], questions: Mapping[int, Question]
) -> tuple[dict[str, float], dict[int, float]]:
    """Official accuracy in 0..1, overall, per answer and question type, and the score of each question by its id.

    predictions: rows with `id` and `prediction`; ValueError names one that repeats or is of no question.
    """
    counts = Counter(row["id"] for row in predictions)
    repeated = [question for question, count in counts.items() if count > 1]
    strange = [question for question in counts if question not in questions]
    for ids, what in ((repeated, "repeat a question"), (strange, "are of no evaluation or tune question")):
        if ids:
            raise ValueError(f"{len(ids)} predictions {what}, first id {ids[0]!r}; give one for each question")
    if not predictions:
        raise ValueError("no predictions to evaluate")
    scores: dict[int, float] = {}
    groups: dict[str, list[float]] = {"vqa_accuracy": []}
    for row in predictions:
        question = questions[row["id"]]
        score = scores[question.id] = accuracy(row["prediction"], question.answers)
        groups["vqa_accuracy"].append(score)
        groups.setdefault(f"vqa_accuracy/{question.answer_type}", []).append(score)
        groups.setdefault(f"vqa_accuracy/question_type/{question.question_type}", []).append(score)
    return {name: fmean(values) for name, values in groups.items()}, scores


def soft_targets(answers: Sequence[str]) -> dict[str, float]:
    """Score every normalised answer by how many of the ten gave it: 0.3, 0.6, 0.9 or 1."""
    return {answer: ACCURACY[count] for answer, count in Counter(map(normalise, answers)).items()}


# Accuracy by number of matching annotators: the mean over all ten of min(1, matches among the other nine / 3).
ACCURACY = tuple(fmean(min(1.0, (n - match) / 3) for match in [1] * n + [0] * (10 - n)) for n in range(11))
