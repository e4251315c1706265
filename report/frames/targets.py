"""How long a recipe takes to the baseline's quality, and whether that is too quick to be true.

A recipe that ends level with the baseline may get there much sooner or later than its last update; one that never
gets there is at infinity, not left out.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from bench.records.record import TARGET_SHARE
from report.frames.units import MISSING, amount, code, time_unit, times

if TYPE_CHECKING:
    import pandas as pd

    from report.frames.compare import Comparison

SECONDS: Final = "time_to_target_seconds"
STEPS: Final = "steps_to_target"
TOO_GOOD: Final = 0.5
EXPLAINED: Final = (
    f"TTT up to the first evaluation on the tune set with {100 * TARGET_SHARE:.0f} % of the last accuracy there of the "
    "baseline run of the same seed. Medians of the seeds; a miss is infinite."
)


def target_lines(comparison: Comparison) -> list[str]:
    """Lay out time to target of every recipe; empty where no run has one."""
    finished = comparison.finished
    runs = finished[finished[SECONDS].notna() | (finished[STEPS].notna() & (finished["disturbed"] != ""))]
    base = runs[runs["kind"] == "baseline"].drop_duplicates("seed", keep=False).set_index("seed")[SECONDS]
    if base.empty:
        return []
    runs = runs.assign(ratio=runs[SECONDS] / runs["seed"].map(base))
    rows = runs.groupby("entry", sort=False)[[SECONDS, "ratio", STEPS]].median()
    reached = (runs[STEPS] < math.inf).groupby(runs["entry"]).agg(["sum", "size"])
    unit = time_unit(float(runs.loc[runs[SECONDS] < math.inf, SECONDS].max()))
    lines = ["### Time to target", "", EXPLAINED, ""]
    lines += ["| recipe | reached by | time to target | × baseline | updates |", "|---|---:|---:|---:|---:|"]
    for label, seconds, ratio, steps, num_reached, total in rows.join(reached).itertuples():
        missed = ("not reached", MISSING, MISSING)
        taken = (amount(seconds, unit), times(ratio)) if seconds < math.inf else (MISSING, MISSING)
        cells = (*taken, f"{steps:.0f}") if steps < math.inf else missed
        lines.append(f"| {code(label)} | {num_reached} of {total} | {' | '.join(cells)} |")
    return [*lines, ""]


def too_good(comparison: Comparison) -> str:
    """Name recipes that converge suspiciously quickly, as reference convergence points do.

    Flagged: every seed reached the target in at most half the updates of the quickest baseline seed.
    """
    runs: pd.DataFrame = comparison.finished
    base = runs.loc[runs["kind"] == "baseline", STEPS].min()
    slowest = runs[runs["kind"] == "run"].groupby("entry", sort=False)[STEPS].agg(lambda steps: steps.max(skipna=False))
    found = slowest[slowest <= TOO_GOOD * base]
    if found.empty:
        return ""
    steps_text = ", ".join(f"{label} ({steps:.0f})" for label, steps in found.items())
    return (
        f"Too good to pass unchecked: with every seed, at most half the updates of the quickest baseline run "
        f"({base:.0f}) took {steps_text} to the target; look at data, rates and target before believing it."
    )
