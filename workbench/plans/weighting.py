"""Timestep weightings: how much each timestep of a map or a measurement counts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..records import BadInput
from ..specs.values import TIMESTEP_WEIGHTS

WEIGHTINGS = TIMESTEP_WEIGHTS
Weighting = str | Mapping[float, float]  # a name, points like 1000=1,0=0, or timestep -> weight


def time_weight(time: float | None, weighting: Weighting) -> float:
    """The weight of a timestep (1000 is pure noise); rows without a timestep weigh 1.

    `normalised` is refused: it divides scores by their means (plans.scores), which needs all rows.
    Raises BadInput for an unknown weighting.
    """
    if time is None or weighting == "uniform":
        return 1.0
    if isinstance(weighting, Mapping):
        return float(weighting.get(time, 0.0))
    if "=" in weighting:
        return interpolated(weight_points(weighting), time)
    if weighting == "high-noise":
        return time / 1000
    if weighting == "low-noise":
        return 1 - time / 1000
    known = ", ".join(WEIGHTINGS)
    raise BadInput(
        f"timestep weighting {weighting!r}",
        f"one of {known}, or points like 1000=1,0=0",
        "choose one",
    )


def check_weighting(weighting: str) -> None:
    """Refuse what is neither a name of WEIGHTINGS nor points."""
    if weighting not in WEIGHTINGS:
        time_weight(0.0, weighting)


def weight_points(text: str) -> dict[float, float]:
    """`1000=1, 500=0.5, 0=0`: timestep -> weight at some timesteps. Raises BadInput."""
    points: dict[float, float] = {}
    for item in text.replace(";", ",").split(","):
        time, _, weight = item.partition("=")
        try:
            points[float(time)] = float(weight)
        except ValueError:
            raise BadInput(
                f"weight {item.strip()!r}",
                "timestep=weight, with commas",
                "write them like 1000=1, 500=0.5, 0=0",
            ) from None
    in_range = all(0 <= time <= 1000 and 0 <= weight < 1e9 for time, weight in points.items())
    if not in_range or not any(points.values()):
        raise BadInput(
            f"weights {text[:60]!r}",
            "timesteps from 0 to 1000 and weights from 0 up, not all 0",
            "change them",
        )
    return points


def interpolated(points: Mapping[float, float], time: float) -> float:
    """The weight at `time`: straight lines between the points, level beyond the ends."""
    times = sorted(points)
    return float(np.interp(time, times, [points[known] for known in times]))
