"""The random numbers of training samples: each sample of a run has a stream of its own, whatever
batch or process it comes in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..records import Timesteps

# Sample numbers of a run lie below; what is drawn once per epoch lies above.
EPOCHS = 2**63


def draws(seed: int, number: int) -> np.random.Generator:
    """The random numbers of one sample of a run: a counter-based stream of its own."""
    key = np.array([seed % 2**64, number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def sample_order(seed: int, epoch: int, bucket: int, count: int) -> np.ndarray:
    """The order of a bucket's samples in an epoch, (count,)."""
    return draws(seed, EPOCHS + epoch + (bucket << 40)).permutation(count)


def batch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch's batches, (count,)."""
    return draws(seed, EPOCHS + 2**62 + epoch).permutation(count)


def noise_level(rng: np.random.Generator, timesteps: Timesteps, levels: Sequence[float]) -> float:
    """One s in (0, 1); `levels` are those of the teacher's sampler."""
    if timesteps.kind == "trajectory":
        return float(levels[int(rng.integers(len(levels)))])
    s = density(rng, timesteps)
    return float(timesteps.shift * s / (1 + (timesteps.shift - 1) * s))


def density(rng: np.random.Generator, timesteps: Timesteps) -> float:
    """One s before the shift."""
    if timesteps.kind == "logit-normal":
        return float(1 / (1 + np.exp(-rng.normal(timesteps.mean, timesteps.std))))
    u = float(rng.random())
    if timesteps.kind == "mode":
        return 1 - u - timesteps.scale * (math.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u


def guidance_scale(rng: np.random.Generator, guidance: float | tuple[float, float]) -> float:
    """A scale, drawn evenly where a range is given."""
    low, high = guidance if isinstance(guidance, tuple) else (guidance, guidance)
    return float(low + (high - low) * rng.random())
