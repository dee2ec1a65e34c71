"""Time limits in units of the machine's speed: equal minutes buy equal training on a busy machine."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import nn

from ..models.precision import bfloat16_autocast
from ..records import jsonfile, write_atomic
from ..training.batch_source import Source
from .distill_work import DistillWork

WARM_UP = 2  # steps, or forwards, that are not counted
MEASURED = 5
FORWARD = 16  # samples of a forward that is timed


class Clock:
    """Seconds between looks at it.

    On a CPU those of this thread on the processor, where they are fewer: other work on the machine
    stretches the wall's seconds, but hardly these. The thread takes part in all that torch
    computes, backward included, and alone runs what is not parallel; all threads' time over their
    number would leave that out.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall = time.perf_counter()
        self.processor = time.thread_time()

    def seconds(self) -> float:
        """Since the last look."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        wall = time.perf_counter()
        processor = time.thread_time()
        seconds = wall - self.wall
        if self.device.type == "cpu":
            seconds = min(seconds, processor - self.processor)
        self.wall = wall
        self.processor = processor
        return seconds


def median(seconds: list[float]) -> float:
    """The median of those after the warm-up."""
    steps = sorted(seconds[WARM_UP:])
    return steps[len(steps) // 2]


def comparable(seconds: list[float], work: DistillWork, pace_file: Path) -> list[float]:
    """Seconds per step as they would be at the pace of the run that wrote the file."""
    teacher = work.original[0] if work.original else work.teacher
    assert teacher is not None
    narrow = any(stage.precision == "bfloat16" for stage in work.stages.stages)
    now = teacher_seconds(teacher, work.sources[None], narrow)
    return at_first_pace(seconds, now, pace_file)


def at_first_pace(seconds: list[float], teacher: float, pace_file: Path) -> list[float]:
    """The seconds, scaled to a machine whose teacher's forward takes what the file says.

    teacher: seconds of its forward now. Without the file it is written with them.
    """
    if not pace_file.exists():
        write_atomic(pace_file, json.dumps({"teacher_seconds": teacher}))
    first = jsonfile.read_object(pace_file, "pace file")["teacher_seconds"]
    return [step * first / teacher for step in seconds]


def teacher_seconds(teacher: nn.Module, source: Source, narrow: bool) -> float:
    """Seconds of a forward of the teacher; narrow: under bfloat16 autocast."""
    device = next(teacher.parameters()).device
    batch = source.batch(0, FORWARD, 0).to(device)
    seconds = []
    with torch.no_grad(), bfloat16_autocast(device.type, narrow):
        clock = Clock(device)
        for _ in range(WARM_UP + MEASURED):
            batch.predict(teacher)
            seconds.append(clock.seconds())
    return median(seconds)
