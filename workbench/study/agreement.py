"""Krippendorff's alpha: how far raters agree beyond chance (Krippendorff 2011, "Computing
Krippendorff's alpha-reliability"). 1 = they always agree, 0 = as by chance, below 0 = they disagree
more than that.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Level = Literal["nominal", "ordinal", "interval"]


def alpha(ratings: np.ndarray, level: Level) -> float | None:
    """ratings: (raters, items), NaN where a rater did not judge an item. level: what distances
    between values mean.

    None where no item has two ratings, or all of them are equal: alpha is 0 / 0 then.
    """
    judged_twice = np.isfinite(ratings).sum(axis=0) >= 2
    ratings = ratings[:, judged_twice]
    values = np.unique(ratings[np.isfinite(ratings)])
    if len(values) < 2:
        return None
    counts = (ratings[:, :, None] == values).sum(axis=0).astype(float)  # (items, values)
    per_item = counts.sum(axis=1)
    pairs = counts.T @ (counts / (per_item - 1)[:, None])
    pairs -= np.diag((counts / (per_item - 1)[:, None]).sum(axis=0))
    totals = pairs.sum(axis=0)
    distance = distances(values, totals, level)
    observed = (pairs * distance).sum()
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1)
    return float(1 - observed / expected)


def distances(values: np.ndarray, totals: np.ndarray, level: Level) -> np.ndarray:
    """Squared distances between values (values, values). totals: how often each was given."""
    if level == "nominal":
        return (values[:, None] != values).astype(float)
    if level == "interval":
        return (values[:, None] - values) ** 2
    # ordinal: the number of ratings between two values, half of those at either end
    middles = np.cumsum(totals) - totals / 2
    return (middles[:, None] - middles) ** 2
