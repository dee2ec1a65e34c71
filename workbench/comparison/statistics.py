"""Means over prompts with their 95 % intervals. All of them come from scipy.stats.

Pictures of one prompt (other seeds) are one draw, not several: they are averaged first. A mean over
all prompts is the mean of the categories' means, however many prompts a category has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its parts load when they are first used: scipy.stats takes seconds

from ..records import Difference, Score
from ..records.results import TWO_POINTS

RESAMPLES = 10_000
SEED = 0
POWER = 0.8  # probability of finding a difference that is there
ENOUGH = 5  # prompts in every category, to resample within categories
AT_ONCE = 2_000_000  # resampled values held in memory
Values = np.ndarray  # (prompts,)
Item = Mapping[str, Any]  # of a suite: its prompt, maybe its category, and what scorers need


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval (None, None where there is only one prompt)."""

    mean: float
    low: float | None = None
    high: float | None = None
    method: str = ""


def wilson(passed: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson 1927): honest near 0 and 1 too."""
    interval = scipy.stats.binomtest(passed, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def prompt_means(values: Sequence[float], items: Sequence[Item]) -> dict[str, Values]:
    """Category -> one mean per prompt. One category "" where an item has none.

    values, items: one per picture. Items of the same prompt share their `index`.
    """
    has_categories = all(item.get("category") for item in items)
    by_prompt: dict[tuple[str, str], list[float]] = {}
    for value, item in zip(values, items, strict=True):
        category = str(item["category"]) if has_categories else ""
        prompt = str(item.get("index", item["prompt"]))
        by_prompt.setdefault((category, prompt), []).append(value)
    means: dict[str, list[float]] = {}
    for (category, _), of_prompt in by_prompt.items():
        means.setdefault(category, []).append(float(np.mean(of_prompt)))
    return {category: np.array(of_category) for category, of_category in means.items()}


def mean_of_groups(groups: Sequence[Values]) -> Estimate:
    """The mean of the groups' means with a bootstrap interval over prompts.

    Prompts are drawn again within their groups where each has ENOUGH of them. Else they are drawn
    from all of them, each with its group's weight: a group of one prompt, resampled by itself,
    would show no uncertainty at all. The mean is the same either way.
    """
    mean = float(np.mean([group.mean() for group in groups]))
    count = sum(map(len, groups))
    if count < 2:
        return Estimate(mean)
    stratified = min(map(len, groups)) >= ENOUGH
    over = "prompts"
    if stratified:
        result = bootstrap(tuple(groups), mean_of_means, paired=False)
    else:
        weights = [np.full(len(group), 1 / len(group)) for group in groups]
        data = (np.concatenate(groups), np.concatenate(weights))
        result = bootstrap(data, weighted_mean, paired=True)
    if len(groups) > 1:
        over = "prompts within categories" if stratified else "prompts, categories weighted equally"
    method = f"bootstrap over {over}, {RESAMPLES} resamples, percentiles 2.5 and 97.5, seed {SEED}"
    low, high = map(float, result.confidence_interval)
    # rounding of sums must not put the interval beside its mean
    return Estimate(mean, min(mean, low), max(mean, high), method)


def weighted_estimate(values: Values, weights: Values) -> Estimate:
    """The mean of values of prompts (prompts,), weighted, with a bootstrap interval over prompts that
    are drawn with their weights: a ratio of sums where values are shares and weights their wholes.
    """
    mean = float(np.average(values, weights=weights))
    if len(values) < 2:
        return Estimate(mean)
    result = bootstrap((values, weights), weighted_mean, paired=True)
    low, high = map(float, result.confidence_interval)
    method = f"bootstrap over prompts, weighted, {RESAMPLES} resamples, seed {SEED}"
    return Estimate(mean, min(mean, low), max(mean, high), method)


def bootstrap(data: tuple[Values, ...], statistic: Any, paired: bool) -> Any:
    batch = max(1, AT_ONCE // sum(map(len, data)))
    return scipy.stats.bootstrap(
        data,
        statistic,
        paired=paired,
        method="percentile",
        n_resamples=RESAMPLES,
        batch=batch,
        rng=np.random.default_rng(SEED),
    )


def mean_of_means(*groups: Values, axis: int) -> Values:
    means: Values = np.mean([group.mean(axis=axis) for group in groups], axis=0)
    return means


def weighted_mean(values: Values, weights: Values, axis: int) -> Values:
    total: Values = (values * weights).sum(axis=axis) / weights.sum(axis=axis)
    return total


def score_of(
    values: Sequence[float],
    items: Sequence[Item],
    *,
    passes: bool = False,
    unit: str = "",
    direction: str = "higher = better",
) -> Score:
    """A Score from one value per picture. passes: the values are 0 and 1, so that a share of them
    has Wilson's interval.
    """
    groups = prompt_means(values, items)
    overall = mean_of_groups(list(groups.values()))
    low, high = overall.low, overall.high
    everything = np.concatenate(list(groups.values()))
    if passes and len(everything) > 1 and is_constant(everything):
        # resampling equal values would show no uncertainty at all
        low, high = wilson(int(everything.sum()), len(everything))
    means: dict[str, float] = {}
    intervals: dict[str, tuple[float | None, float | None]] = {}
    for category, group in groups.items():
        if category:
            means[category] = float(group.mean())
            intervals[category] = interval_of(group, passes)
    return Score(
        overall=overall.mean,
        low=low,
        high=high,
        by_category=means,
        intervals=intervals,
        per_image=list(values),
        unit=unit,
        direction=direction,
    )


def is_constant(values: Values) -> bool:
    return bool((values == values[0]).all())


def interval_of(group: Values, passes: bool) -> tuple[float | None, float | None]:
    """(low, high) of one category's mean: Wilson's where every prompt passed or failed."""
    if passes and len(group) > 1 and set(group.tolist()) <= {0.0, 1.0}:
        return wilson(int(group.sum()), len(group))
    estimate = mean_of_groups([group])
    return estimate.low, estimate.high


def paired_difference(
    values: Sequence[float], others: Sequence[float], items: Sequence[Item]
) -> Difference:
    """`values` minus `others`, picture by picture of the same prompts and seeds."""
    differences = [float(a) - float(b) for a, b in zip(values, others, strict=True)]
    groups = list(prompt_means(differences, items).values())
    estimate = mean_of_groups(groups)
    shares = all(0 <= value <= 1 for value in (*values, *others))
    return Difference(
        mean=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        method=f"paired {estimate.method}" if estimate.method else "",
        prompts_needed=prompts_needed(groups, TWO_POINTS) if shares else None,
    )


def share_interval(
    values: Sequence[float], others: Sequence[float], items: Sequence[Item]
) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `values` over that of `others`, on the same pictures; both
    means are of the categories' means. None for a single prompt, and for a mean of 0 or less.

    Of the ratio r = v / o it is that of the paired differences v - r x o, divided by the mean of o:
    the ratio is taken as linear around its estimate (as in Cochran, Sampling Techniques, 6.4).
    """
    base = mean_of_groups(list(prompt_means(others, items).values())).mean
    if base <= 0:
        return None
    share = mean_of_groups(list(prompt_means(values, items).values())).mean / base
    apart = paired_difference(values, [share * other for other in others], items)
    if apart.low is None or apart.high is None:
        return None
    return share + apart.low / base, share + apart.high / base


def prompts_needed(groups: Sequence[Values], apart: float) -> int | None:
    """How many prompts a paired comparison needs to find a true difference of `apart` significant
    at 5 %, two-sided, with a probability of POWER.

    groups: category -> one difference per prompt, of a comparison that was made; prompts are shared
    out evenly among categories, and the spread within each is taken for the true one: normal
    approximation, n = (z(0.975) + z(POWER))^2 x mean variance / apart^2. None where a category has a
    single prompt or nothing differs.
    """
    if min(map(len, groups)) < 2:
        return None
    variance = float(np.mean([group.var(ddof=1) for group in groups]))
    if variance == 0:
        return None
    normal = scipy.stats.norm
    margin = float(normal.ppf(0.975) + normal.ppf(POWER)) / apart
    return math.ceil(margin**2 * variance)
