"""Intervals for pass rates. All are 95 %."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Z = 1.959964


def wilson(passed: int, n: int) -> tuple[float, float]:
    """Wilson's interval of a share (Wilson 1927): honest near 0 and 1 too."""
    share = passed / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * (share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(groups: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Mean of the groups' means with a stratified normal interval (mean, low, high). Values may be
    passes or differences.
    """
    mean = float(np.mean([np.mean(g) for g in groups]))
    variance = (
        sum(np.var(np.asarray(g, float), ddof=1) / len(g) if len(g) > 1 else 0.25 for g in groups)
        / len(groups) ** 2
    )
    return mean, mean - Z * float(variance) ** 0.5, mean + Z * float(variance) ** 0.5


def paired_difference(
    first: Sequence[Sequence[bool]], second: Sequence[Sequence[bool]]
) -> tuple[float, float, float]:
    """second minus first on the same prompts, group by group: mean, low, high of a paired normal
    interval.
    """
    return mean_interval(
        [np.asarray(b, float) - np.asarray(a, float) for a, b in zip(first, second, strict=True)]
    )
