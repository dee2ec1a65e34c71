"""What a scan measures: scores of single calls under typed keys, and the rows made of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..records import BadInput, Row


class Key(NamedTuple):
    """What a score is of: one edit of one block, or of the span block..last."""

    stack: str
    block: int
    edit: str
    last: int | None = None


Scores = dict[Key, list[float]]  # one score per sample of the call


@dataclass(frozen=True)
class CallScores:
    """The scores of one call.

    timestep: None where a score covers all of them. prompts: the caption of each sample, empty
    where they are not known (then each sample counts as a prompt of its own). evaluations: block
    forwards this took; naive_evaluations: those of whole forwards without replaying.
    """

    group: int
    timestep: float | None
    scores: Scores
    prompts: tuple[str, ...] = ()
    evaluations: int = 0
    naive_evaluations: int = 0

    @property
    def samples(self) -> int:
        return len(next(iter(self.scores.values()), ()))


@dataclass
class Measurement:
    """What a metric measured: rows of a map, and facts about how (`SensitivityMap.measured`).

    calls: the scores of single calls, where there are any: stability is computed from them.
    """

    rows: list[Row]
    calls: list[CallScores] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    evaluations: int = 0
    naive_evaluations: int = 0
    steps: int = 0


def mean_rows(calls: Iterable[CallScores]) -> list[Row]:
    """Mean and standard error over all samples of a timestep, from noise to picture."""
    pooled: dict[tuple[float | None, Key], list[float]] = {}
    for call in calls:
        timestep = rounded(call.timestep)
        for key, values in call.scores.items():
            pooled.setdefault((timestep, key), []).extend(values)
    noise_first = sorted(pooled.items(), key=lambda item: -(item[0][0] or 0.0))
    return [mean_row(key, values, timestep) for (timestep, key), values in noise_first]


def mean_row(key: Key, values: list[float], timestep: float | None = None) -> Row:
    """Mean of the samples' scores; its standard error where there are several samples."""
    stderr = None
    if len(values) > 1:
        stderr = float(np.std(values, ddof=1) / len(values) ** 0.5)
    return Row(
        stack=key.stack,
        block=key.block,
        last=key.last,
        edit=key.edit,
        timestep=timestep,
        score=float(np.mean(values)),
        stderr=stderr,
        samples=len(values),
    )


def rounded(timestep: float | None) -> float | None:
    """Timesteps that differ by rounding count as one."""
    return None if timestep is None else round(timestep, 3)


def no_calls() -> BadInput:
    return BadInput("no calls to measure on", "at least one prompt and timestep", "give prompts")
