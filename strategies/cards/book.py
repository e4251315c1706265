"""Write `docs/strategies.md`: the card of every strategy, by kind. `python -m strategies.cards.book`.

The prose is that of the docstrings, ranges are those of the options' types, and each example can be typed as it
stands. The page is a file, so that it can be read without the site; a test holds it to the code.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import Final

from strategies.cards.card import card, default_text
from strategies.language.catalogue import catalogue
from strategies.language.recipes import recipes
from strategies.options import describe_type
from strategies.protocol import FROZEN, FROZEN_BASE, Kind, Strategy, defaults

TITLES: Final[dict[Kind, str]] = {
    "weights": "Which weights train", "numerics": "Number types", "memory": "What is kept in memory",
    "speed": "The same computation, faster", "update": "The update", "data": "How the model is fed",
}  # fmt: skip
SECTIONS: Final = re.compile(r"(?:^| )(What|Why it helps|What it costs|When not to use it|Paper): ")
URL: Final = re.compile(r"(?<![(<])(https?://[^\s;,)]*[\w/])")
COMMON_OPTIONS: Final = ("lr", "head_lr", "scope", "roles", "target_modules")  # options that say little about a method
COMPANIONS: Final = {FROZEN_BASE: "+lora", FROZEN: "+freeze(scope='vision')"}
INTRODUCTION: Final = """# Strategy cards

Every strategy, from the docstring of its code: what it does, why it helps, what it costs, when not to use it, paper.
`run_matrix.py list WORD` prints the same. A recipe is a sum of such words, `lora(r=8)+amp`;
[which go together](compatibility.md) was tried. Written by `make docs`; a test holds it to the code."""


def cardbook() -> str:
    """Give the page."""
    kinds: dict[str, list[type[Strategy]]] = {kind: [] for kind in TITLES}
    for _, strategy in sorted(catalogue().items()):
        kinds[strategy.kind].append(strategy)
    lines = [INTRODUCTION, ""]
    for kind, strategies in kinds.items():
        lines += [f"## {TITLES[typing.cast('Kind', kind)]}", ""]
        for strategy in strategies:
            lines += _card_lines(strategy)
    return "\n".join([*lines, *_recipe_table()])


def example(strategy: type[Strategy]) -> str:
    """Give a sum with this strategy that can be typed as it stands, with one of its own options where it has any."""
    own_options = {
        name: value for name, value in defaults(strategy).items() if name not in COMMON_OPTIONS and value is not None
    }
    chosen = strategy.trial if dataclasses.MISSING in own_options.values() else dict(list(own_options.items())[:1])
    options = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
    beside = "".join(combination for need, combination in COMPANIONS.items() if need in strategy.requires)
    return strategy.name + (f"({options})" if options else "") + beside


def _card_lines(strategy: type[Strategy]) -> list[str]:
    """Lay out one card."""
    facts = card(strategy)
    summary = facts["summary"]
    lines = [f"### `{strategy.name}`", "", summary[0].upper() + summary[1:], ""]
    for paragraph in facts["text"].split("\n\n")[1:]:
        words = _with_links(" ".join(paragraph.split()))
        before, *parts = SECTIONS.split(words)
        lines += [before, ""] if before else []
        for head, body in zip(parts[::2], parts[1::2], strict=True):
            lines += [f"**{head}:** {body}", ""]
    lines += ["```text", f'python run_matrix.py --strategies "{example(strategy)}"', "```", ""]
    if options := defaults(strategy):
        hints = typing.get_type_hints(strategy, include_extras=True)
        lines += ["| option | default | may be |", "|---|---|---|"]
        lines += [f"| `{name}` | {_default_text(strategy, name)} | {describe_type(hints[name])} |" for name in options]
        lines += [""]
    return lines


def _default_text(strategy: type[Strategy], option: str) -> str:
    given = defaults(strategy)[option] is dataclasses.MISSING
    return "must be given" if given else f"`{default_text(strategy, option)}`"


def _with_links(words: str) -> str:
    return URL.sub(r"<\1>", words)


def _recipe_table() -> list[str]:
    rows = [
        f"| `{word}` | `{combination}` | {_with_links(why)} |" for word, (combination, why) in sorted(recipes().items())
    ]
    return ["## Named sums", "", "| word | stands for | why |", "|---|---|---|", *rows]


if __name__ == "__main__":
    print(cardbook())
