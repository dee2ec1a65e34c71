"""Would other prompts give the same order of blocks? A bootstrap over the calibration prompts.

Prompts are drawn again with replacement, each edit's scores averaged anew, the blocks ranked; the
figure is the Spearman correlation of that order with the whole set's, its mean and its 2.5 and 97.5
percentiles over resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..plans.weighting import time_weight

# batch of prompts, timestep, "stack block edit" -> a score a sample
Result = tuple[int, float | None, Mapping[str, Sequence[float]]]
RESAMPLES, SEED = 200, 0
ENOUGH = 0.9  # the lower end of the interval from which an order counts as stable
FEWEST = 5  # prompts; resampling fewer tells nothing


def stability(
    results: Sequence[Result], *, prompts: int | None = None, weighting: str = "normalised"
) -> dict[str, dict[str, Any]]:
    """Edit -> {spearman, low, high, prompts, stable}, of the order of blocks; edits with fewer than
    three rows are left out.

    `prompts`: how many different ones there are, where samples beyond them repeat them under other
    seeds (sample i shows prompt i mod prompts); samples of one prompt are drawn together.
    `weighting` over timesteps as in plans.block_scores.
    """
    starts = _starts(results)
    out = {}
    edits = dict.fromkeys(key.split(" ")[2] for _, _, scores in results for key in scores)
    for edit in edits:
        keys = list(
            dict.fromkeys(
                key for _, _, scores in results for key in scores if key.split(" ")[2] == edit
            )
        )
        if len(keys) >= 3:
            table, times = _table(results, starts, keys, prompts)
            out[edit] = _bootstrap(table, times, weighting)
    return out


def _starts(results: Sequence[Result]) -> dict[int, int]:
    """Batch -> number of its first sample."""
    sizes = {group: len(next(iter(scores.values()))) for group, _, scores in results if scores}
    starts, count = {}, 0
    for group in sorted(sizes):
        starts[group] = count
        count += sizes[group]
    return starts


def _table(
    results: Sequence[Result], starts: Mapping[int, int], keys: Sequence[str], prompts: int | None
) -> tuple[np.ndarray, list]:
    """Scores as (prompts, timesteps, blocks), means over the samples of a prompt, NaN where there
    are none; and the timesteps.
    """
    times = list(
        dict.fromkeys(round(time, 3) if time is not None else None for _, time, _ in results)
    )
    found: dict[int, list[np.ndarray]] = {}
    for group, time, scores in results:
        values = np.array([scores[key] for key in keys])  # (blocks, samples)
        at = times.index(round(time, 3) if time is not None else None)
        for index in range(values.shape[1]):
            sample = starts[group] + index
            row = np.full((len(times), len(keys)), np.nan)
            row[at] = values[:, index]
            found.setdefault(sample % prompts if prompts else sample, []).append(row)
    return np.stack([_nanmean(np.stack(rows)) for _, rows in sorted(found.items())]), times


def _nanmean(rows: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where nothing is."""
    count = (~np.isnan(rows)).sum(0)
    return np.where(count > 0, np.nansum(rows, 0) / np.maximum(count, 1), np.nan)


def _bootstrap(table: np.ndarray, times: list, weighting: str) -> dict[str, Any]:
    count = len(table)
    # (resamples, prompts)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    whole = ranks(_aggregate(np.ones((1, count)), table, times, weighting))[0]
    drawn = ranks(_aggregate(draws, table, times, weighting))
    values = np.array([_correlation(one, whole) for one in drawn])
    low, high = np.percentile(values, [2.5, 97.5])
    return {
        "spearman": float(values.mean()),
        "low": float(low),
        "high": float(high),
        "prompts": count,
        "stable": bool(low >= ENOUGH and count >= FEWEST),
    }


def _aggregate(draws: np.ndarray, table: np.ndarray, times: list, weighting: str) -> np.ndarray:
    """One score per resample and block, as plans.block_scores has it: (resamples, blocks)."""
    there = ~np.isnan(table)
    sums = np.einsum("rp,ptb->rtb", draws, np.where(there, table, 0))
    # (resamples, timesteps, blocks)
    means = sums / np.maximum(np.einsum("rp,ptb->rtb", draws, there), 1e-30)
    if weighting == "normalised":
        level = means.mean(2, keepdims=True)
        means = means / np.where(level > 0, level, 1)
        weights = np.ones(len(times))
    else:
        weights = np.array([time_weight(time, weighting) for time in times])
    return np.einsum("rtb,t->rb", means, weights)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Ranks along the last axis, 0 = lowest; equal scores share their mean rank."""
    below = (scores[..., None, :] < scores[..., :, None]).sum(-1)
    same = (scores[..., None, :] == scores[..., :, None]).sum(-1)
    return below + (same - 1) / 2


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / norm) if norm else 1.0
