"""Distilling a student: stages of losses, as one generator that the job, the notebook and the test
drive alike.

What a stage does follows from its fields, not from its name: gradient `span` is block-wise and
teacher-fed, `full` runs the student end to end on its own states with output, feature and task
losses (DESIGN section 6).
"""

from __future__ import annotations

from .folder import write_student, write_weights
from .loop import checkpoint_blocks, distill
from .parallel import ALONE, Processes, joined
from .run import Run
from .trained import Scores, parameter_scale, trained_blocks, trained_parameters

__all__ = [
    "ALONE",
    "Processes",
    "Run",
    "Scores",
    "checkpoint_blocks",
    "distill",
    "joined",
    "parameter_scale",
    "trained_blocks",
    "trained_parameters",
    "write_student",
    "write_weights",
]
