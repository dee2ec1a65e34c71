"""The student's guidance gap while it trains, on the same few samples throughout a stage."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from ..training.guidance_gap import GuidanceGap, gap_of, gap_sums
from .stage_work import StageWork

EVERY = 50  # steps between two measurements
SAMPLES = 16  # two forwards of the student on so many take under 1 % of the time of those steps


class GapCurve:
    """Measures at a stage's first step, every EVERY steps, and at its last.

    seed: of samples that are not trained on. context: of a forward (the stage's precision).
    """

    def __init__(
        self, work: StageWork, seed: int, context: Callable[[], AbstractContextManager[Any]]
    ) -> None:
        size = max(min(SAMPLES, work.stage.batch), work.processes.world)
        self.work = work
        self.batch = work.batch(0, size, seed, both_branches=True)
        self.context = context
        self.teachers: torch.Tensor | None = None  # the teacher's gap, (B, ...) like the latents

    def is_due(self, step: int) -> bool:
        """step: of the stage, from 1."""
        return step == 1 or step % EVERY == 0 or step == self.work.stage.steps

    def measure(self, student: nn.Module) -> dict[str, float]:
        """As metrics of a step: guidance_gap (ratio) and guidance_gap_cosine."""
        with self.context():
            if self.teachers is None:
                self.teachers = gap_of(self.work.teacher, self.batch, guided=True)
            own = gap_of(student, self.batch)
        gap = GuidanceGap.of_sums(self.work.processes.summed(gap_sums(own, self.teachers)))
        return {"guidance_gap": gap.ratio, "guidance_gap_cosine": gap.cosine}


def can_measure(work: StageWork) -> bool:
    """Whether a stage has a gap to measure: a model of two branches that learns from a teacher.

    A teacher-fed student is not run as a whole: its frozen blocks are the teacher's, perhaps in
    another precision.
    """
    runs_whole = work.stage.gradient == "full" or work.stage.inputs == "student"
    return runs_whole and work.learns_from_teacher and work.source.two_branches
