"""How a scan is run, beside the model, the calls and the edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .results import CallScores

Gather = Callable[[list[CallScores]], list[CallScores]]


@dataclass(frozen=True)
class Setting:
    """How a scan is run.

    total: number of calls, 0 where it is not known. sampling: forwards of the sampler that come on
    top. partial: where the scores of finished calls are kept. weighting: of timesteps, in the order
    of blocks that `until_stable` waits for and in a race. race: how many blocks of the lowest
    scores are looked for (module race), where the calls come batch after batch; None: every block
    is measured to the end. gather: joins what several processes measured, each on
    its share of the calls; given this process's it returns everyone's. options: the metric's own
    (recovery: Training).
    """

    total: int = 0
    sampling: int = 0
    partial: Path | None = None
    weighting: str = "normalised"
    until_stable: bool = False
    race: int | None = None
    gather: Gather | None = None
    options: Any = None
