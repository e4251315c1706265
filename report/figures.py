"""The figures of a sweep by file name: each a pure function from a comparison to a figure."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from report.bars import memory_bars, time_bars
from report.curves import learning_curves
from report.forest import differences
from report.scatter import accuracy_against

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure

    from report.compare import Comparison

FIGURES: Final[dict[str, Callable[[Comparison], Figure]]] = {
    "accuracy_vs_memory": functools.partial(accuracy_against, cost="peak_allocated_bytes"),
    "accuracy_vs_ttt": functools.partial(accuracy_against, cost="ttt_seconds"),
    "memory_breakdown": memory_bars,
    "time_breakdown": time_bars,
    "learning_curves": learning_curves,
    "differences": differences,
}
CAPTIONS: Final = {
    "accuracy_vs_memory": "Quality against peak memory",
    "accuracy_vs_ttt": "Quality against time to train",
    "memory_breakdown": "What holds the memory at the peak",
    "time_breakdown": "What the time is spent on",
    "learning_curves": "Quality on the tune set and train loss over time",
    "differences": "What can be told apart from the baseline",
}
