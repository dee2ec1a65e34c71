"""Means over prompts with their uncertainty. Pictures of one prompt (other seeds) are one draw, not
several.

Where every category has enough prompts, the overall mean is the mean of the categories' means, and
resampling stays inside them; else categories are ignored for it: resampling one prompt from one
would show no uncertainty at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES, SEED = 10_000, 0
ENOUGH = 5  # prompts in every category
METHOD = f"bootstrap over prompts, within categories of {ENOUGH} and more, {RESAMPLES} resamples, percentiles 2.5 and 97.5, seed {SEED}"


def by_category(values: Sequence[float], items: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Category -> one mean per prompt. `values` has one entry per picture, `items` the item of each
    picture.
    """
    groups: dict[str, dict[str, list[float]]] = {}
    all_have = all(item.get("category") for item in items)
    for value, item in zip(values, items, strict=True):
        category = str(item["category"]) if all_have else ""
        groups.setdefault(category, {}).setdefault(
            str(item.get("index", item["prompt"])), []
        ).append(float(value))
    return {
        category: np.array([np.mean(v) for v in prompts.values()])
        for category, prompts in groups.items()
    }


def interval(groups: Sequence[np.ndarray]) -> tuple[float, float | None, float | None]:
    """Mean and its 95 % bootstrap interval (mean, low, high); no interval for a single prompt."""
    if len(groups) > 1 and min(map(len, groups)) < ENOUGH:
        groups = [np.concatenate(list(groups))]
    mean = float(np.mean([group.mean() for group in groups]))
    if sum(map(len, groups)) < 2:
        return mean, None, None
    rng = np.random.default_rng(SEED)
    means = np.zeros(RESAMPLES)
    for group in groups:
        # bounded memory
        for part in np.array_split(
            np.arange(RESAMPLES), max(1, RESAMPLES * len(group) // 2_000_000)
        ):
            means[part] += group[rng.integers(0, len(group), (len(part), len(group)))].mean(
                1
            ) / len(groups)
    # Rounding of sums must not put the interval beside its mean.
    return (
        mean,
        min(mean, float(np.percentile(means, 2.5))),
        max(mean, float(np.percentile(means, 97.5))),
    )


def summary(values: Sequence[float], items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """overall, low, high (null for a single prompt), a mean per category, and `intervals`: category
    -> [low, high].
    """
    groups = by_category(values, items)
    mean, low, high = interval(list(groups.values()))
    named = {name: group for name, group in groups.items() if name}
    categories = {name: float(group.mean()) for name, group in named.items()}
    return {
        "overall": mean,
        "low": low,
        "high": high,
        **categories,
        "intervals": {n: around(g) for n, g in named.items()},
    }


def around(group: np.ndarray) -> list[float | None]:
    """[low, high] of one category's mean: Wilson's interval for passes and fails, else the
    bootstrap.

    Resampling a category in which every prompt passed would show no uncertainty at all.
    """
    if len(group) > 1 and set(group.tolist()) <= {0.0, 1.0}:
        n, share, z = len(group), float(group.mean()), 1.959964
        middle, half = (
            share + z * z / (2 * n),
            z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5,
        )
        return [
            max(0.0, (middle - half) / (1 + z * z / n)),
            min(1.0, (middle + half) / (1 + z * z / n)),
        ]
    return list(interval([group])[1:])


def paired_difference(
    values: Sequence[float], first: Sequence[float], items: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """`values` minus `first`, picture by picture: mean, low, high and how they were found."""
    difference = [float(b) - float(a) for a, b in zip(first, values, strict=True)]
    mean, low, high = interval(list(by_category(difference, items).values()))
    return {"mean": mean, "low": low, "high": high, "method": f"paired {METHOD}"}
