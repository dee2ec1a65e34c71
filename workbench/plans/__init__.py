"""Plans: are they sound, and what do they cost? Pure arithmetic over the teacher's tensor layouts,
no weights.
"""

from __future__ import annotations

from .check import SINGLE, can_single, check
from .composing import compose
from .cost import BYTES, cut_free, free_cuts, memory, parameters, span_parameters, stock
from .difference import difference
from .info import info, info_rows, part_parameters
from .picture import picture
from .scores import (
    WEIGHTINGS,
    between,
    block_scores,
    check_weighting,
    predicted_error,
    span_scores,
    time_weight,
    timestep_weights,
    weight_points,
)
from .spans import family_of, from_marks, identity, spans_of, spans_of_kept
from .speed import Tokens, predicted_latency, predicted_speedup, work

__all__ = [
    "BYTES",
    "SINGLE",
    "WEIGHTINGS",
    "Tokens",
    "between",
    "block_scores",
    "can_single",
    "check",
    "check_weighting",
    "compose",
    "cut_free",
    "difference",
    "family_of",
    "free_cuts",
    "from_marks",
    "identity",
    "info",
    "info_rows",
    "memory",
    "parameters",
    "part_parameters",
    "picture",
    "predicted_error",
    "predicted_latency",
    "predicted_speedup",
    "span_parameters",
    "span_scores",
    "spans_of",
    "spans_of_kept",
    "stock",
    "time_weight",
    "timestep_weights",
    "weight_points",
    "work",
]
