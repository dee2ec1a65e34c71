"""ABX against guessing: exact binomial figures. Which picture X is was drawn by a fair coin for each
vote, so correct answers of whoever sees no difference are independent coin flips, however votes
of one rater or on one prompt resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import scipy

CHANCE = 0.5
LEVEL = 0.05
POWER = 0.8


def p_value(correct: int, votes: int) -> float:
    """Probability of at least so many correct answers from guessing."""
    return float(scipy.stats.binomtest(correct, votes, CHANCE, "greater").pvalue)


def needed(votes: int) -> int | None:
    """The least number of correct answers with p <= 0.05; None where even all would not do."""
    least = int(scipy.stats.binom.isf(LEVEL, votes, CHANCE)) + 1
    return least if least <= votes else None


def detectable(votes: int) -> float | None:
    """The smallest true share of correct answers that is found with 80 % probability; None where
    no share is.
    """
    least = needed(votes)
    if least is None:
        return None

    def lacking(share: float) -> float:
        return float(scipy.stats.binom.sf(least - 1, votes, share)) - POWER

    return float(scipy.optimize.brentq(lacking, CHANCE, 1.0))


def seen(share: float) -> float:
    """The share of trials in which the difference is seen: others are guessed, half of them right."""
    return max(0.0, 2 * share - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values for several tests at once (Holm 1979)."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
