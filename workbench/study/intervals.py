"""95 % intervals for votes: of one rater, and on one prompt, they are alike.

Raters and prompts are both drawn again (the pigeonhole bootstrap: Owen 2007, "The pigeonhole
bootstrap", Annals of Applied Statistics 1(2)): a vote counts as often as its rater was drawn times
as often as its prompt was. It is a little too wide rather than too narrow. Wilson's interval (1927)
takes its place where all votes are equal, over raters or prompts, whichever are fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are first used

from ..records import Interval

RESAMPLES = 2000
SEED = 0
Values = np.ndarray


@dataclass(frozen=True)
class Draws:
    """How often each rater and each prompt was drawn: (resamples, raters), (resamples, prompts)."""

    raters: Values
    prompts: Values

    @classmethod
    def make(cls, raters: int, prompts: int, resamples: int = RESAMPLES) -> Draws:
        random = np.random.default_rng(SEED)
        of_raters = random.multinomial(raters, np.full(raters, 1 / raters), size=resamples)
        of_prompts = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
        return cls(of_raters.astype(float), of_prompts.astype(float))

    def sums(self, cells: Values) -> Values:
        """Sum over all votes of each resample. cells: (raters, prompts) sums of the real votes."""
        total: Values = ((self.raters @ cells) * self.prompts).sum(axis=1)
        return total


@dataclass(frozen=True)
class Votes:
    """Values that belong to a rater and a prompt, all of one length."""

    raters: Sequence[int]
    prompts: Sequence[int]
    values: Sequence[float]

    def cells(self, raters: Sequence[int], prompts: Sequence[int]) -> tuple[Values, Values]:
        """(sums, counts) of shape (raters, prompts)."""
        sums = np.zeros((len(raters), len(prompts)))
        counts = np.zeros_like(sums)
        rows = np.searchsorted(raters, self.raters)
        columns = np.searchsorted(prompts, self.prompts)
        np.add.at(sums, (rows, columns), self.values)
        np.add.at(counts, (rows, columns), 1)
        return sums, counts


def mean_interval(votes: Votes, is_share: bool = False) -> Interval:
    """The mean with its interval. is_share: values are from 0 to 1.

    Raises ValueError for no votes.
    """
    values = np.asarray(votes.values, dtype=float)
    if not len(values):
        raise ValueError("no votes")
    raters = sorted(set(votes.raters))
    prompts = sorted(set(votes.prompts))
    mean = float(values.mean())
    if bool((values == values[0]).all()):
        return interval_of_equal_votes(mean, min(len(raters), len(prompts)), is_share)
    if len(raters) < 2 and len(prompts) < 2:
        return Interval(value=mean)
    draws = Draws.make(len(raters), len(prompts))
    sums, counts = votes.cells(raters, prompts)
    means = shares(draws.sums(sums), draws.sums(counts))
    return percentiles(mean, means, method_of(len(raters), len(prompts)))


def shares(sums: Values, counts: Values) -> Values:
    """Means of the resamples that have a vote at all."""
    filled = counts > 0
    return sums[filled] / counts[filled]


def percentiles(value: float, resampled: Values, method: str) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    # rounding of sums must not put the interval beside its value
    return Interval(
        value=value, low=min(value, float(low)), high=max(value, float(high)), method=method
    )


def method_of(raters: int, prompts: int, resamples: int = RESAMPLES) -> str:
    return f"pigeonhole bootstrap over {raters} raters and {prompts} prompts, {resamples} resamples"


def interval_of_equal_votes(value: float, count: int, is_share: bool) -> Interval:
    """Resampling equal votes would show no uncertainty at all."""
    if not is_share or count < 2 or value not in (0.0, 1.0):
        return Interval(value=value)
    interval = scipy.stats.binomtest(round(value * count), count).proportion_ci(method="wilson")
    method = f"Wilson over {count} raters or prompts, whichever are fewer: all votes are equal"
    return Interval(value=value, low=float(interval.low), high=float(interval.high), method=method)
