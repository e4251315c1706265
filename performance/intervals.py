"""An interval for a median of few, noisy ratios: order statistics, without a model of the noise; and two clocks."""

import statistics
import time
from collections.abc import Sequence
from math import comb

COVERAGE = 0.95
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}  # the second ignores what others compute


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Give low, median, high: the narrowest pair of order statistics that holds the median in 95 of 100 cases.

    Fewer than six values have no such pair: then it is the smallest and the largest.
    """
    ordered, number = sorted(values), len(values)
    outside = 0.0  # chance that the median lies outside the interval cut by one more at each end
    cut = 0
    for place in range(number // 2):
        outside += 2 * comb(number, place) / 2**number
        if 1 - outside < COVERAGE:
            break
        cut = place
    return ordered[cut], statistics.median(ordered), ordered[-1 - cut]


def told(values: Sequence[float]) -> str:
    """Give median and interval as text."""
    low, middle, high = median_interval(values)
    return f"{middle:.3f} ({low:.3f}–{high:.3f})"
