"""The records every room passes to the next: immutable files, named by their content (DESIGN
section 1).

A record is a frozen pydantic model with JSON in and out. Plans and distillation specs are YAML,
because people write them.
"""

from __future__ import annotations

from typing import Literal

from .base import BadInput, Progress, Record, explain, read_text, read_yaml, write_atomic
from .plan import Init, Plan, Span
from .results import Card, Comparison, ModelResult
from .sensitivity import Row, SensitivityMap
from .spec import DistillSpec, Loss, LossName, Stage, Timesteps
from .teacher import StackInfo, Stream, Teacher, numel

State = Literal["queued", "running", "stopping", "paused", "done", "failed", "cancelled", "lost"]

__all__ = [
    "BadInput",
    "Card",
    "Comparison",
    "DistillSpec",
    "Init",
    "Loss",
    "LossName",
    "ModelResult",
    "Plan",
    "Progress",
    "Record",
    "Row",
    "SensitivityMap",
    "Span",
    "StackInfo",
    "Stage",
    "State",
    "Stream",
    "Teacher",
    "Timesteps",
    "explain",
    "numel",
    "read_text",
    "read_yaml",
    "write_atomic",
]
