"""How the official VQA evaluator normalises an answer, rule by rule (visualqa.org/evaluation), bit for bit.

Written from the published rules and held to outputs of the official evaluator by tests. One of its habits surprises:
one comma between digits makes *every* mark vanish instead of becoming a space.
"""

from __future__ import annotations

import re
from functools import lru_cache

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
_DROPPED = ((word, index) for word in _WORDS.split() for index, letter in enumerate(word) if letter == "'")
CONTRACTIONS = {word[:index] + word[index + 1 :]: word for word, index in _DROPPED}
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
