"""The figures of a sweep by file name: each a pure function of what may be compared.

`BASIC` are drawn after every sweep; `BONUS` compare optimisations with each other, and `figures` draws all.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from report.figures.ablations import cumulative_ablation_bars, leave_one_out_bars
from report.figures.bars import memory_bars, step_bars, target_bars, time_bars
from report.figures.curves import learning_curves
from report.figures.forest import differences
from report.figures.heatmaps import by_answer_type, by_question_type, pairwise_heatmap
from report.figures.predicted_memory import predicted_memory
from report.figures.scaling import scaling_curves
from report.figures.scatter import accuracy_against
from report.figures.seeds import seed_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

FIGURES: Final[dict[str, Callable[[Comparison], Figure]]] = {
    "accuracy_vs_memory": functools.partial(accuracy_against, cost="peak_allocated_bytes"),
    "accuracy_vs_ttt": functools.partial(accuracy_against, cost="ttt_seconds"),
    "accuracy_vs_energy": functools.partial(accuracy_against, cost="energy_joules"),
    "memory_breakdown": memory_bars,
    "time_breakdown": time_bars,
    "step_breakdown": step_bars,
    "learning_curves": learning_curves,
    "learning_curves_by_update": functools.partial(learning_curves, by_updates=True),
    "time_to_target": target_bars,
    "differences": differences,
    "seeds": seed_scores,
    "ladder": cumulative_ablation_bars,
    "leave_one_out": leave_one_out_bars,
    "pairs": pairwise_heatmap,
    "predicted_memory": predicted_memory,
    "answer_types": by_answer_type,
    "question_types": by_question_type,
}
ACROSS_SETTINGS: Final[dict[str, Callable[[Sequence[Comparison]], Figure]]] = {"savings": scaling_curves}
CAPTIONS: Final = {
    "accuracy_vs_memory": "Quality against peak memory",
    "accuracy_vs_ttt": "Quality against time to train",
    "accuracy_vs_energy": "Quality against energy",
    "memory_breakdown": "What holds the memory at the peak",
    "time_breakdown": "What the time is spent on",
    "step_breakdown": "What an update is made of",
    "learning_curves": "Quality on the tune set and train loss over time",
    "learning_curves_by_update": "Quality on the tune set and train loss over updates",
    "time_to_target": "Time to the baseline's quality",
    "differences": "What can be told apart from the baseline",
    "seeds": "The score of every seed",
    "ladder": "Techniques added one by one",
    "leave_one_out": "A recipe without each of its techniques",
    "pairs": "Pairs of techniques",
    "predicted_memory": "Peak memory, predicted and measured",
    "answer_types": "Quality by type of answer",
    "question_types": "Quality by type of question",
    "savings": "Savings against model and batch size",
}
BASIC: Final = (
    "accuracy_vs_memory", "accuracy_vs_ttt", "memory_breakdown", "time_breakdown", "learning_curves", "differences",
)  # fmt: skip
BONUS: Final = (
    "ladder", "leave_one_out", "pairs", "differences", "seeds", "step_breakdown", "time_to_target", "predicted_memory",
    "accuracy_vs_memory", "accuracy_vs_ttt", "accuracy_vs_energy", "savings",
)  # fmt: skip
