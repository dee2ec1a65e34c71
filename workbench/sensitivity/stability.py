"""Would other prompts give the same order of blocks? A bootstrap over the calibration prompts.

Prompts are drawn again with replacement, each edit's scores averaged anew, the blocks ranked. The
figure is the Spearman correlation of that order with the order of all prompts: its mean and its 2.5
and 97.5 percentiles over the resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy  # its parts load when they are first used: scipy.stats takes seconds

from ..plans.weighting import time_weight
from ..records import Stability
from .results import CallScores, Key, rounded

RESAMPLES = 200
SEED = 0
ENOUGH = 0.9  # an order counts as stable where the interval's lower end is at least this
FEWEST = 5  # prompts; resampling fewer says nothing
FEWEST_ROWS = 3  # blocks; fewer have no order worth the name


def stability(calls: Sequence[CallScores], weighting: str = "normalised") -> dict[str, Stability]:
    """Edit -> how stable its order of blocks is; edits with fewer than three rows are left out.

    Samples of one prompt (several seeds) are drawn together. `weighting` over timesteps as in
    plans.block_scores. Where all blocks score the same there is no order: the correlation is None.
    """
    keys_of: dict[str, list[Key]] = {}
    for call in calls:
        for key in call.scores:
            keys = keys_of.setdefault(key.edit, [])
            if key not in keys:
                keys.append(key)
    prompts = prompt_numbers(calls)
    found = {}
    for edit, keys in keys_of.items():
        if len(keys) >= FEWEST_ROWS:
            table, timesteps = score_table(calls, prompts, keys)
            found[edit] = _bootstrap(table, timesteps, weighting)
    return found


def prompt_numbers(calls: Sequence[CallScores]) -> dict[int, list[int]]:
    """Group -> the prompt number of each of its samples.

    Samples with one caption share a number; without captions every sample has its own.
    """
    numbers: dict[str, int] = {}
    of_group: dict[int, list[int]] = {}
    for call in sorted(calls, key=lambda call: call.group):
        if call.group in of_group or not call.samples:
            continue
        names = call.prompts or [f"group {call.group} sample {i}" for i in range(call.samples)]
        of_group[call.group] = [numbers.setdefault(name, len(numbers)) for name in names]
    return of_group


def score_table(
    calls: Sequence[CallScores], prompts: Mapping[int, Sequence[int]], keys: Sequence[Key]
) -> tuple[np.ndarray, list[float | None]]:
    """Scores (prompts, timesteps, blocks), means over a prompt's samples and NaN where there are
    none; and the timesteps."""
    timesteps = list(dict.fromkeys(rounded(call.timestep) for call in calls))
    count = 1 + max(max(numbers) for numbers in prompts.values())
    sums = np.zeros((count, len(timesteps), len(keys)))
    samples = np.zeros(sums.shape)
    for call in calls:
        time = timesteps.index(rounded(call.timestep))
        measured = [index for index, key in enumerate(keys) if key in call.scores]
        if not measured:
            continue
        values = np.array([call.scores[keys[index]] for index in measured])  # (blocks, samples)
        for sample, prompt in enumerate(prompts[call.group]):
            sums[prompt, time, measured] += values[:, sample]
            samples[prompt, time, measured] += 1
    with np.errstate(invalid="ignore"):
        return sums / samples, timesteps  # 0 / 0 is NaN


def _bootstrap(table: np.ndarray, timesteps: Sequence[float | None], weighting: str) -> Stability:
    count = len(table)
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    whole = scipy.stats.rankdata(_aggregate(np.ones((1, count)), table, timesteps, weighting)[0])
    drawn = scipy.stats.rankdata(_aggregate(draws, table, timesteps, weighting), axis=1)
    correlations = [correlation(order, whole) for order in drawn]
    if np.isnan(correlation(whole, whole)):
        return Stability(spearman=None, low=None, high=None, prompts=count, stable=False)
    # A resample in which all blocks score the same says nothing for the order.
    values = np.nan_to_num(correlations, nan=0.0)
    low, high = np.percentile(values, [2.5, 97.5])
    return Stability(
        spearman=float(values.mean()),
        low=float(low),
        high=float(high),
        prompts=count,
        stable=bool(low >= ENOUGH and count >= FEWEST),
    )


def _aggregate(
    draws: np.ndarray, table: np.ndarray, timesteps: Sequence[float | None], weighting: str
) -> np.ndarray:
    """One score per resample and block, as plans.block_scores weighs timesteps: (resamples,
    blocks)."""
    present = ~np.isnan(table)
    sums = np.einsum("rp,ptb->rtb", draws, np.where(present, table, 0))
    counts = np.einsum("rp,ptb->rtb", draws, present)
    means = sums / np.maximum(counts, 1e-30)  # (resamples, timesteps, blocks)
    if weighting == "normalised":
        level = means.mean(2, keepdims=True)
        return (means / np.where(level > 0, level, 1)).sum(1)
    weights = np.array([time_weight(time, weighting) for time in timesteps])
    return np.einsum("rtb,t->rb", means, weights)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson correlation; NaN where one of the two does not vary."""
    a = one - one.mean()
    b = other - other.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else float("nan")
