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
    """Give the options with their defaults as they would be typed: `r=8, alpha=16`."""
    return ", ".join(
        f"{option}=…" if default is dataclasses.MISSING else f"{option}={default!r}"
        for option, default in defaults(strategy).items()
    )


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
