"""How the models of a comparison are held."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..specs.placements import PLACEMENTS, Placement


@dataclass(frozen=True)
class Holding:
    """placement: of each model while it is sampled, one after the other. together: whether all
    transformers fit beside each other, to be timed in turns. cache: for encoded prompts.
    """

    placement: Placement
    together: bool = True
    cache: Path | None = None


WHOLE = Holding(PLACEMENTS["whole"])
