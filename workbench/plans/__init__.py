"""Plans: are they sound, and what do they cost? Pure arithmetic over the teacher's tensor layouts,
no weights.
"""

from __future__ import annotations

from .check import can_single, check
from .composing import compose
from .cost import BYTES, FreeCut, cut_free, free_cuts, memory, parameters, span_parameters
from .difference import difference
from .gains import Gain, gain_for, parse_gain
from .info import PlanInfo, part_parameters, plan_info, teacher_info
from .kept_blocks import kept_blocks
from .modulation import SAVES, is_factored, smallest_ranks, takes_rank, with_modulation
from .picture import picture
from .predicted_error import PredictedError, predicted_error
from .scores import TimestepWeight, block_scores, span_scores, timestep_weights
from .spans import family_of, identity, spans_of, spans_of_kept
from .speed import predicted_latency, work
from .tokens import Tokens, tokens_of
from .weighting import WEIGHTINGS, check_weighting, interpolated, time_weight, weight_points

__all__ = [
    "BYTES",
    "SAVES",
    "WEIGHTINGS",
    "FreeCut",
    "Gain",
    "PlanInfo",
    "PredictedError",
    "TimestepWeight",
    "Tokens",
    "block_scores",
    "can_single",
    "check",
    "check_weighting",
    "compose",
    "cut_free",
    "difference",
    "family_of",
    "free_cuts",
    "gain_for",
    "identity",
    "interpolated",
    "is_factored",
    "kept_blocks",
    "memory",
    "parameters",
    "parse_gain",
    "part_parameters",
    "picture",
    "plan_info",
    "predicted_error",
    "predicted_latency",
    "smallest_ranks",
    "span_parameters",
    "span_scores",
    "spans_of",
    "spans_of_kept",
    "takes_rank",
    "teacher_info",
    "time_weight",
    "timestep_weights",
    "tokens_of",
    "weight_points",
    "with_modulation",
    "work",
]
