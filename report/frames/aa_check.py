"""A/A check: two groups of runs of *one* recipe, drawn again and again; every verdict of a difference is false.

The statistics of this package are kept honest by it: from many seeds of one recipe, two groups without a common seed
are compared as if they were two recipes. Beside the verdict on recipes stands what a test over questions alone would
have said of the first two runs, or of all runs pooled, which takes a seed's luck for a recipe's merit.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from report.frames.inference import BETTER, EQUAL, UNKNOWN, WORSE, two_recipes, two_runs, verdict

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERDICTS: Final = (BETTER, WORSE, EQUAL, UNKNOWN)


class VerdictRates(NamedTuple):
    """Shares of draws, 0 to 1.

    false: a difference was found where there is none. equal, unknown: the other verdicts. naive_false: a difference
    found by the test over questions alone. half_width: median of the intervals, 0 to 1; NaN with one seed.
    """

    false: float
    equal: float
    unknown: float
    naive_false: float
    half_width: float


def rates(scores: NDArray[np.float64], group_size: int, draws: int, seed: int = 0) -> VerdictRates:
    """Compare `draws` random pairs of groups of `group_size` runs; `scores`: (runs, questions) of one recipe."""
    if not 1 <= group_size <= len(scores) // 2:
        raise ValueError(f"two groups of {group_size} runs need {2 * group_size}; there are {len(scores)}")
    random = np.random.default_rng(seed)
    verdict_counts: Counter[str] = Counter()
    naive, half_widths = 0, []
    for _ in range(draws):
        chosen = random.permutation(len(scores))[: 2 * group_size].reshape(2, group_size)
        differences = scores[chosen[0]] - scores[chosen[1]]
        naive += verdict(two_runs(differences.mean(axis=0))) in {BETTER, WORSE}
        if group_size == 1:
            verdict_counts[UNKNOWN] += 1
            continue
        estimate = two_recipes(differences)
        verdict_counts[verdict(estimate)] += 1
        half_widths.append((estimate.high - estimate.low) / 2)
    shares = [verdict_counts[word] / draws for word in VERDICTS]
    middle = float(np.median(half_widths)) if half_widths else float("nan")
    return VerdictRates(shares[0] + shares[1], shares[2], shares[3], naive / draws, middle)
