"""Times of runs that others disturbed: taken out once, where a sweep is read, so that nothing made of it has them.

Quality and the allocator's memory stay: other work on the machine does not change them. What was measured stands in
runs.csv and in the run's record. A target that was never reached is no time and stays, too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from bench.records.record import DISTURBANCE_COLUMNS, RUN_COLUMNS

ENDINGS: Final = ("_seconds", "_per_second", "_joules", "_dollars")
OTHERS_TIMES: Final = frozenset({"cache_seconds", "tuning_seconds"})  # of the data, and of runs with marks of their own
TIMES: Final = tuple(
    column
    for column in RUN_COLUMNS
    if (column.endswith(ENDINGS) or column == "mfu") and column not in {*OTHERS_TIMES, *DISTURBANCE_COLUMNS}
)
MIN_REPEATS: Final = 3  # of a time, from which on it is more than a hint


def left_out(number: int) -> str:
    """Say of how many runs the times are left out; empty where of none."""
    return f"Times of {number} run{'' if number == 1 else 's'} are left out, as others disturbed them" if number else ""


def without_disturbed_times(
    runs: pd.DataFrame, history: pd.DataFrame, sections: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The frames of a sweep without the times of disturbed runs: cells are missing, their sections left out."""
    disturbed = runs["disturbed"] != ""
    if not disturbed.any():
        return runs, history, sections
    named = runs.loc[disturbed, "run_id"]
    times = {column: runs[column].mask(disturbed & np.isfinite(runs[column])) for column in TIMES}
    seconds = history["train_seconds"].mask(history["run_id"].isin(named))
    return (
        runs.assign(**times),
        history.assign(train_seconds=seconds),
        sections[~sections["run_id"].isin(named)].reset_index(drop=True),
    )
