"""What differences between paired scores allow to be said, and how surely: pure functions on arrays.

Two sources of chance are kept apart. Other *questions* would move a difference, and so would other *seeds*: on a
small task a seed moves scores by more than most recipes do. A statement about recipes needs both, so it starts from
several seeds, the same for both recipes: a t interval over the seeds, whose few degrees of freedom it pays for,
joined with the spread of the questions' own effects (two-way analysis of variance; half-widths add in squares). A
statement about two trained models needs the questions alone, and says nothing about recipes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, ndtri, stdtrit

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA: Final = 0.05
MARGIN: Final = 0.01
RESAMPLES: Final = 1000
SMALLEST_P: Final = 1e-9

EQUAL: Final = "equal"
BETTER: Final = "better"
WORSE: Final = "worse"
UNKNOWN: Final = "cannot tell"


class Estimate(NamedTuple):
    """A difference of mean scores (0 to 1) with its 95 % interval.

    p: of the hypothesis that there is none. p_equal: of the hypothesis that it is MARGIN or more, either way.
    """

    difference: float
    low: float
    high: float
    p: float
    p_equal: float


class Errors(NamedTuple):
    """Standard errors of a mean difference.

    seeds: from the spread of the seeds, with few degrees of `freedom`. noise: the part of it that answers changing
    at random from seed to seed make up, known from many answers: seeds that agree by luck do not go below it.
    questions: from the choice of questions.
    """

    seeds: float
    freedom: int
    noise: float
    questions: float

    def half_width(self, p: float) -> float:
        """Half the width of the interval that a difference of zero leaves with probability `p`."""
        few = -float(stdtrit(self.freedom, p / 2))  # quantile of Student's t
        many = -float(ndtri(p / 2))  # and of the normal
        return math.hypot(max(few * self.seeds, many * self.noise), many * self.questions)

    def beyond(self, distance: float) -> float:
        """Probability of an estimate at least `distance` above the truth."""
        if distance < 0:
            return 1 - self.beyond(-distance)
        if self.half_width(SMALLEST_P) <= distance:
            return 0.5 if distance == 0 else SMALLEST_P / 2
        return float(brentq(lambda p: self.half_width(p) - distance, SMALLEST_P, 1.0)) / 2


def two_recipes(differences: NDArray[np.float64]) -> Estimate:
    """Compare two recipes from `differences` (seeds, questions), both at least 2.

    Given the questions, the seeds' means are independent draws, so their t interval holds whatever the seeds share;
    what is left is how far these questions are from all questions.
    """
    num_seeds, num_questions = differences.shape
    by_seed, by_question, mean = differences.mean(axis=1), differences.mean(axis=0), differences.mean()
    residual = differences - by_seed[:, None] - by_question[None, :] + mean
    noise = (residual**2).sum() / ((num_seeds - 1) * (num_questions - 1))
    own = max(num_seeds * by_question.var(ddof=1) - noise, 0.0)  # mean square of the questions' own effects
    errors = Errors(
        seeds=math.sqrt(by_seed.var(ddof=1) / num_seeds),
        freedom=num_seeds - 1,
        noise=math.sqrt(noise / (num_seeds * num_questions)),
        questions=math.sqrt(own / (num_seeds * num_questions)),
    )
    difference, half = float(mean), errors.half_width(ALPHA)
    return Estimate(
        difference, difference - half, difference + half,
        p=2 * errors.beyond(abs(difference)), p_equal=errors.beyond(MARGIN - abs(difference)),
    )  # fmt: skip


def two_runs(differences: NDArray[np.float64]) -> Estimate:
    """Compare two trained models from `differences` (questions): bootstrap interval, exact McNemar p.

    McNemar's test counts the questions on which either is ahead; for scores between 0 and 1 that is the sign test.
    """
    values, counts = np.unique(differences, return_counts=True)
    # Drawing how often each value occurs is drawing questions with replacement, at a cost that they do not set.
    draws = np.random.default_rng(0).multinomial(counts.sum(), counts / counts.sum(), size=RESAMPLES)
    means = np.sort(draws @ values / counts.sum())
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    ahead, behind = int(counts[values > 0].sum()), int(counts[values < 0].sum())
    outside = max((means <= -MARGIN).sum(), (means >= MARGIN).sum())
    return Estimate(
        float(differences.mean()), float(low), float(high),
        p=min(1.0, 2 * float(bdtr(min(ahead, behind), ahead + behind, 0.5))),
        p_equal=(int(outside) + 1) / (RESAMPLES + 1),
    )  # fmt: skip


def verdict(estimate: Estimate) -> str:
    """One of EQUAL (within MARGIN), BETTER, WORSE and UNKNOWN, each wrong in about ALPHA of cases."""
    if estimate.p_equal < ALPHA:
        return EQUAL
    if estimate.low > 0:
        return BETTER
    return WORSE if estimate.high < 0 else UNKNOWN


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's correction: with it, the chance of *any* false difference among all of them stays below ALPHA."""
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected
