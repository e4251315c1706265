"""Method cards: what the module docstring of a strategy says, for `list` and for reports.

The card is written once, where the method is written, so that text and code cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

from strategies.protocol import defaults

if TYPE_CHECKING:
    from strategies.protocol import Strategy

PAPER = re.compile(r"https?://\S+[\w/]|arXiv:\d{4}\.\d{4,5}")


def options_text(strategy: type[Strategy]) -> str:
    """Give the options with their defaults as they would be typed, `r=8, alpha=2*r`: alpha follows r."""
    return ", ".join(f"{option}={default_text(strategy, option)}" for option in defaults(strategy))


def default_text(strategy: type[Strategy], option: str) -> str:
    """Give an option's default as it would be typed; `…` where it must be given, `2*r` where it follows another."""
    if option in strategy.follows:
        other, times = strategy.follows[option]
        return other if times == 1 else f"{times}*{other}"
    default = defaults(strategy)[option]
    return "…" if default is dataclasses.MISSING else repr(default)


def card(strategy: type[Strategy]) -> dict[str, Any]:
    """Give a JSON-able card: name, kind, options, the whole text, its first sentence and the papers it names."""
    text = inspect.cleandoc(sys.modules[strategy.__module__].__doc__ or "")
    return {
        "name": strategy.name,
        "kind": strategy.kind,
        "options": options_text(strategy),
        "summary": text.split("\n\n")[0].replace("\n", " ").partition(" — ")[2],
        "text": text,
        "papers": PAPER.findall(text),
    }
