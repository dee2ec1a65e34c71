"""The records that rooms pass to each other: immutable files, named by their content.

A record is a frozen pydantic model with JSON in and out. Plans and distillation specs are YAML,
because people write them. docs/architecture.md says who writes and who reads each one.
"""

from __future__ import annotations

from typing import Literal

from . import jsonfile, yamlfile
from .distillation import DistillSpec, Loss, Stage, Timesteps
from .errors import BadInput
from .files import check_regular, draft_of, link_or_copy, read_text, write_atomic
from .plan import Init, Modulation, Plan, Span
from .progress import Progress
from .record import Record, read_yaml
from .results import Card, Comparison, Difference, ModelResult, Quantization, Score
from .sensitivity_map import Race, Row, SensitivityMap, Stability
from .study import (
    CRITERIA,
    DAMAGED,
    Choice,
    Seat,
    Slot,
    Study,
    StudyItem,
    StudyKind,
    StudyRow,
    Vote,
)
from .study_results import (
    AbxResult,
    Agreement,
    Interval,
    PairResult,
    RaterResult,
    RatingResult,
    Strength,
    StudyResults,
)
from .teacher import StackInfo, Stream, Teacher, numel

# damaged: the job's record cannot be read, so that nobody knows
State = Literal[
    "queued",
    "running",
    "stopping",
    "paused",
    "done",
    "failed",
    "cancelled",
    "lost",
    "damaged",
]

__all__ = [
    "CRITERIA",
    "DAMAGED",
    "AbxResult",
    "Agreement",
    "BadInput",
    "Card",
    "Choice",
    "Comparison",
    "Difference",
    "DistillSpec",
    "Init",
    "Interval",
    "Loss",
    "ModelResult",
    "Modulation",
    "PairResult",
    "Plan",
    "Progress",
    "Quantization",
    "Race",
    "RaterResult",
    "RatingResult",
    "Record",
    "Row",
    "Score",
    "Seat",
    "SensitivityMap",
    "Slot",
    "Span",
    "Stability",
    "StackInfo",
    "Stage",
    "State",
    "Stream",
    "Strength",
    "Study",
    "StudyItem",
    "StudyKind",
    "StudyResults",
    "StudyRow",
    "Teacher",
    "Timesteps",
    "Vote",
    "check_regular",
    "draft_of",
    "jsonfile",
    "link_or_copy",
    "numel",
    "read_text",
    "read_yaml",
    "write_atomic",
    "yamlfile",
]
