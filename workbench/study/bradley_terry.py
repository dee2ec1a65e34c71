"""Bradley-Terry strengths by the MM iteration of Hunter 2004, "MM algorithms for generalized
Bradley-Terry models", Annals of Statistics 32(1).

P(i wins against j) = s_i / (s_i + s_j). A tie is half a win of each. Every pair that was compared
gets one tie more, so that a model that lost every vote has a strength at all.
"""

from __future__ import annotations

import numpy as np

PRIOR = 0.5  # wins that each model of a compared pair gets
STEPS = 5_000
TOLERANCE = 1e-8  # largest relative change of a strength per step
Wins = np.ndarray  # (.., models, models): how often row won against column, ties as half


def log_strengths(wins: Wins) -> np.ndarray:
    """Log strengths (.., models), the first model's is 0. Several tables are solved at once.

    Compared pairs must connect all models.
    """
    met = (wins + np.swapaxes(wins, -1, -2)) > 0
    wins = wins + PRIOR * met
    games = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(axis=-1)
    strengths = np.ones_like(won)
    for _ in range(STEPS):
        sums = strengths[..., :, None] + strengths[..., None, :]
        new = won / (games / sums).sum(axis=-1)
        new /= np.exp(np.log(new).mean(axis=-1, keepdims=True))
        change = np.abs(new / strengths - 1).max()
        strengths = new
        if change < TOLERANCE:
            break
    logs: np.ndarray = np.log(strengths)
    return logs - logs[..., :1]
