"""Where the wall clock of all runs of a folder went: training is what is wanted, the rest is what it costs to have it.

Sections are read by whatever names were recorded. Seconds of a run that no section covers stand as "outside sections"
where the run's own wall clock was recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd

from report.frames.units import amount, percent, time_unit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.frames.compare import Comparison

TRAINING: Final = ("warmup", "train")
WALL: Final = "wall_seconds"


def wall_lines(comparisons: Sequence[Comparison]) -> list[str]:
    """Say what share of the runs' wall clock was training and where the rest went; empty without sections."""
    sections = pd.concat([comparison.sections for comparison in comparisons])
    sections = sections.drop_duplicates(["run_id", "section"])
    if sections.empty or not sections["seconds"].sum() > 0:
        return []
    seconds = sections.groupby("section")["seconds"].sum()
    rest = _unsectioned_seconds(comparisons, sections)
    total = float(seconds.sum()) + rest
    training = float(seconds[seconds.index.isin(TRAINING)].sum())
    others = seconds[~seconds.index.isin(TRAINING)].sort_values(ascending=False)
    shares = [f"{name} {percent(value / total)}" for name, value in others.items()]
    shares += [f"outside sections {percent(rest / total)}"] if rest > 0 else []
    text = (
        f"Of {amount(total, time_unit(total))} that {sections['run_id'].nunique()} runs took, "
        f"{percent(training / total)} was training (warm-up included). The rest: {', '.join(shares)}."
    )
    return ["### Where the wall clock went", "", text, ""]


def _unsectioned_seconds(comparisons: Sequence[Comparison], sections: pd.DataFrame) -> float:
    """Seconds of the runs' wall clock that no section covers; 0 where the wall clock was not recorded."""
    runs = pd.concat([comparison.runs for comparison in comparisons]).drop_duplicates("run_id")
    if WALL not in runs:
        return 0.0
    wall = runs.set_index("run_id")[WALL].dropna()
    covered = sections[sections["run_id"].isin(wall.index)]["seconds"].sum()
    return max(float(wall.sum() - covered), 0.0)
