"""Scores of a map, one per block: averages over timesteps, and what they foretell of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ..records import BadInput, Plan, Row, SensitivityMap

Key = TypeVar("Key")
WEIGHTINGS = ("normalised", "uniform", "high-noise", "low-noise")


def block_scores(
    sensitivity: SensitivityMap,
    edit: str = "drop",
    weighting: str | Mapping[float, float] = "normalised",
) -> dict[tuple[str, int], float]:
    """One score per (stack, block), higher = keep, averaged over timesteps with `weighting`.

    normalised: each timestep's scores divided by their mean first (relative errors at low noise are
    20-45 times those at high noise and would drown the rest). high-noise (Amber-Image, arXiv
    2602.17047, omega_t rising with noise): weight t/1000. low-noise: 1 - t/1000. A mapping gives
    the weight of each timestep; text like `1000=1, 0=0` the weights at some, with straight lines
    between them.
    """
    rows = [row for row in sensitivity.rows if row.edit == edit and row.last is None]
    return _averaged([((row.stack, row.block), row) for row in rows], _weights(rows, weighting))


def span_scores(
    sensitivity: SensitivityMap, edit: str, weighting: str | Mapping[float, float] = "normalised"
) -> dict[tuple[str, int, int], float]:
    """One score per (stack, first, last) of a map whose rows cover spans, averaged over timesteps
    as `block_scores` does.
    """
    rows = [row for row in sensitivity.rows if row.edit == edit and row.last is not None]
    return _averaged(
        [((row.stack, row.block, row.last or 0), row) for row in rows], _weights(rows, weighting)
    )


def _averaged(
    rows: Iterable[tuple[Key, Row]], weights: Mapping[float | None, tuple[float, float]]
) -> dict[Key, float]:
    """Key -> weighted mean of its rows."""
    sums: dict[Key, list[float]] = {}
    for key, row in rows:
        weight = weights[row.timestep]
        total = sums.setdefault(key, [0.0, 0.0])
        total[0] += weight[0] * row.score
        total[1] += weight[1]
    return {key: value / norm if norm else 0.0 for key, (value, norm) in sums.items()}


def timestep_weights(
    sensitivity: SensitivityMap, edit: str, weighting: str | Mapping[float, float]
) -> dict[float | None, tuple[float, float]]:
    """Timestep -> (factor on the score, its share of the norm)."""
    return _weights(
        [row for row in sensitivity.rows if row.edit == edit and row.last is None], weighting
    )


def _weights(
    rows: Sequence[Row], weighting: str | Mapping[float, float]
) -> dict[float | None, tuple[float, float]]:
    times: Iterable[float | None] = dict.fromkeys(row.timestep for row in rows)
    out: dict[float | None, tuple[float, float]] = {}
    for time in times:
        scores = [row.score for row in rows if row.timestep == time]
        if weighting == "normalised":
            mean = sum(scores) / len(scores)
            out[time] = (1 / mean if mean > 0 else 0.0, 1.0)
        else:
            weight = time_weight(time, weighting)
            out[time] = (weight, weight)
    return out


def time_weight(time: float | None, weighting: str | Mapping[float, float]) -> float:
    """How much a timestep counts; `normalised` is not a weight of its own and is refused."""
    if time is None or weighting == "uniform":
        return 1.0
    if isinstance(weighting, Mapping):
        return float(weighting.get(time, 0.0))
    if "=" in weighting:
        return between(weight_points(weighting), time)
    if weighting in ("high-noise", "low-noise"):
        return time / 1000 if weighting == "high-noise" else 1 - time / 1000
    raise BadInput(
        f"timestep weighting {weighting!r}",
        "one of " + ", ".join(WEIGHTINGS) + ", or points like 1000=1,0=0",
        "choose one",
    )


def check_weighting(weighting: str) -> None:
    """Refuse what is neither a name of WEIGHTINGS nor points."""
    if weighting not in WEIGHTINGS:
        time_weight(0.0, weighting)


def weight_points(text: str) -> dict[float, float]:
    """`1000=1, 500=0.5, 0=0`: weights at some timesteps."""
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
    if not all(
        0 <= time <= 1000 and 0 <= weight < 1e9 for time, weight in points.items()
    ) or not any(points.values()):
        raise BadInput(
            f"weights {text[:60]!r}",
            "timesteps from 0 to 1000 and weights from 0 up, not all 0",
            "change them",
        )
    return points


def between(points: dict[float, float], time: float) -> float:
    """Straight lines between the points, level beyond the ends."""
    below = max((t for t in points if t <= time), default=None)
    above = min((t for t in points if t >= time), default=None)
    if below is None or above is None or below == above:
        return points[below if below is not None else above]  # type: ignore[index]
    share = (time - below) / (above - below)
    return points[below] * (1 - share) + points[above] * share


# metrics whose scores rank blocks or spans, but are no error of the student before training
NO_ERROR = ("influence", "cka", "recovery")


def predicted_error(
    plan: Plan, sensitivity: SensitivityMap, weighting: str = "uniform"
) -> float | None:
    """Sum of the single-edit scores of what the plan does: a first-order guess, good for ranking,
    not a promise.

    In the unit of the map; None where it has no scores of what the plan does. Errors of
    neighbouring edits do not add up (docs/log.md); measure the plan before you believe it.
    """
    spans_of_all = [span for spans in plan.stacks.values() for span in spans]
    needed = {f"drop:{part}" for span in spans_of_all for part in span.drop}
    needed |= {"single"} if any(span.stream == "single" for span in spans_of_all) else set()
    needed |= (
        {"drop"}
        if any(len(span) > 1 for span in spans_of_all) and "merge" not in sensitivity.edits
        else set()
    )
    if sensitivity.metric in NO_ERROR or needed - set(sensitivity.edits):
        return None
    scores = {edit: block_scores(sensitivity, edit, weighting) for edit in sensitivity.edits}
    drop, merge = scores.get("drop", {}), scores.get("merge", {})
    total = 0.0
    for path, spans in plan.stacks.items():
        for span in spans:
            averaged = span.init == "mean" and merge
            for block in range(span.first, span.last + (0 if averaged else 1)):
                if averaged or block not in span.source:
                    total += (merge if averaged else drop).get((path, block), 0.0)
            for part in span.drop:
                total += scores.get(f"drop:{part}", {}).get((path, span.source[0]), 0.0)
            if span.stream == "single":
                total += scores.get("single", {}).get((path, span.source[0]), 0.0)
    return total
