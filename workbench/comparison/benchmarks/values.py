"""What an official scorer found, as a Score with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...records import Difference, Score
from ..statistics import (
    Estimate,
    Item,
    mean_of_groups,
    paired_difference,
    prompt_means,
    score_of,
    weighted_estimate,
)


@dataclass(frozen=True)
class Values:
    """One value per picture, or per prompt where the scorer gives no more.

    items: of each value; values of one prompt share their `index`. weights: of each value, where
    the benchmark's score is a ratio of sums (letters found of letters asked for); equal for the
    pictures of a prompt. plain: the overall score is the mean over prompts, not over categories.
    per_picture: whether there is a value for each picture. groups: category -> its own values and
    weights, where a picture counts in several categories.
    """

    values: Sequence[float]
    items: Sequence[Item]
    unit: str = ""
    weights: Sequence[float] | None = None
    plain: bool = False
    passes: bool = False
    per_picture: bool = True
    direction: str = "higher = better"
    groups: Mapping[str, Values] = field(default_factory=dict)

    def score(self) -> Score:
        """The Score: intervals are of 95 %, over prompts."""
        score = score_of(
            self.values,
            self.items,
            passes=self.passes,
            unit=self.unit,
            direction=self.direction,
        )
        if self.weights is not None:
            score = self.weighted(score)
        elif self.plain:
            groups = list(prompt_means(self.values, without_categories(self.items)).values())
            score = with_overall(score, mean_of_groups(groups))
        if self.groups:
            means, intervals = {}, {}
            for name, group in self.groups.items():
                own = group.score()
                means[name] = own.overall
                intervals[name] = (own.low, own.high)
            score = score.model_copy(update={"by_category": means, "intervals": intervals})
        if not self.per_picture:
            score = score.model_copy(update={"per_image": None})
        return score

    def weighted(self, score: Score) -> Score:
        """The same with ratios of sums instead of means."""
        means, intervals = {}, {}
        for category in score.by_category:
            places = [n for n, item in enumerate(self.items) if item["category"] == category]
            estimate = self.ratio(places)
            means[category] = estimate.mean
            intervals[category] = (estimate.low, estimate.high)
        score = score.model_copy(update={"by_category": means, "intervals": intervals})
        return with_overall(score, self.ratio(range(len(self.values))))

    def ratio(self, places: Sequence[int]) -> Estimate:
        """Sum of values x weights over sum of weights; prompts are resampled."""
        assert self.weights is not None
        sums: dict[str, list[float]] = {}
        for place in places:
            prompt = str(self.items[place]["index"])
            total = sums.setdefault(prompt, [0.0, 0.0])
            total[0] += self.values[place] * self.weights[place]
            total[1] += self.weights[place]
        known = [total for total in sums.values() if total[1] > 0]
        if not known:  # nothing was asked for
            return Estimate(0.0)
        found, asked = np.array(known).T  # (prompts,) each
        return weighted_estimate(found / asked, asked)

    def difference(self, first: Values | Total) -> Difference | None:
        """To the first model's values of the same pictures, paired; None for ratios of sums, and
        where the two have not been scored on the same ones.
        """
        if isinstance(first, Total) or self.weights is not None:
            return None
        if keys(self.items) != keys(first.items):
            return None
        items = without_categories(self.items) if self.plain else self.items
        return paired_difference(self.values, first.values, items)


@dataclass(frozen=True)
class Total:
    """A score without single values: the scorer prints its mean alone, so there is no interval."""

    overall: float
    by_category: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""

    def score(self) -> Score:
        return Score(overall=self.overall, by_category=dict(self.by_category), unit=self.unit)

    def difference(self, first: object) -> None:
        """None: means alone cannot be paired."""


Result = Values | Total


def without_categories(items: Sequence[Item]) -> list[Item]:
    return [{**item, "category": ""} for item in items]


def keys(items: Sequence[Item]) -> list[str]:
    return [str(item["index"]) for item in items]


def with_overall(score: Score, estimate: Estimate) -> Score:
    figures = {"overall": estimate.mean, "low": estimate.low, "high": estimate.high}
    return score.model_copy(update=figures)
