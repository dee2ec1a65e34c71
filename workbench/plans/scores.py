"""Scores of a sensitivity map, one per block or span, averaged over timesteps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

from ..records import Row, SensitivityMap
from .weighting import Weighting, time_weight

Key = TypeVar("Key")
BlockScores = dict[tuple[str, int], float]  # (stack, block) -> score, higher = keep


class TimestepWeight(NamedTuple):
    """A score is the sum of factor x row over the timesteps, divided by the sum of the norms."""

    factor: float
    norm: float


def block_scores(
    sensitivity: SensitivityMap, edit: str = "drop", weighting: Weighting = "normalised"
) -> BlockScores:
    """One score per (stack, block), higher = keep, averaged over timesteps.

    normalised: each timestep's scores are divided by their mean first, since relative errors at
    low noise are 20-45 times those at high noise. high-noise (Amber-Image, arXiv 2602.17047,
    omega_t rising with noise): weight t/1000. low-noise: 1 - t/1000. A mapping gives the weight of
    each timestep; text like `1000=1, 0=0` the weights at some, with straight lines in between.
    """
    rows = _block_rows(sensitivity, edit)
    weights = _timestep_weights(rows, weighting)
    return _means((((row.stack, row.block), row) for row in rows), weights)


def span_scores(
    sensitivity: SensitivityMap, edit: str, weighting: Weighting = "normalised"
) -> dict[tuple[str, int, int], float]:
    """One score per (stack, first, last) of a map whose rows cover spans, averaged as
    `block_scores` does.
    """
    rows = [row for row in sensitivity.rows if row.edit == edit and row.last is not None]
    weights = _timestep_weights(rows, weighting)
    return _means((((row.stack, row.block, row.last or 0), row) for row in rows), weights)


def timestep_weights(
    sensitivity: SensitivityMap, edit: str, weighting: Weighting
) -> dict[float | None, TimestepWeight]:
    """How much each timestep of an edit's block scores counts."""
    return _timestep_weights(_block_rows(sensitivity, edit), weighting)


def _block_rows(sensitivity: SensitivityMap, edit: str) -> list[Row]:
    return [row for row in sensitivity.rows if row.edit == edit and row.last is None]


def _means(
    rows: Iterable[tuple[Key, Row]], weights: dict[float | None, TimestepWeight]
) -> dict[Key, float]:
    """Key -> weighted mean of its rows."""
    sums: dict[Key, float] = {}
    norms: dict[Key, float] = {}
    for key, row in rows:
        weight = weights[row.timestep]
        sums[key] = sums.get(key, 0.0) + weight.factor * row.score
        norms[key] = norms.get(key, 0.0) + weight.norm
    return {key: total / norms[key] if norms[key] else 0.0 for key, total in sums.items()}


def _timestep_weights(
    rows: Sequence[Row], weighting: Weighting
) -> dict[float | None, TimestepWeight]:
    by_time: dict[float | None, list[float]] = {}
    for row in rows:
        by_time.setdefault(row.timestep, []).append(row.score)
    weights = {}
    for time, scores in by_time.items():
        if weighting == "normalised":
            mean = sum(scores) / len(scores)
            weights[time] = TimestepWeight(1 / mean if mean > 0 else 0.0, 1.0)
        else:
            weight = time_weight(time, weighting)
            weights[time] = TimestepWeight(weight, weight)
    return weights
