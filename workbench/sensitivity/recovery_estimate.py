"""What metric recovery will take: as a scan's estimate, with training steps timed apart."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from .candidates import Candidate
from .estimate import Estimate, estimate
from .recovery_training import Recovery, optimizer
from .teacher_fed import Trainee

TIMED_STEPS = 3
GRADIENT_BYTES = 4  # a parameter, of the one candidate that learns at the moment


def recovery_estimate(recovery: Recovery, sampling: int) -> Estimate:
    """Seconds, memory and block forwards of the whole measurement; `sampling` forwards of the
    sampler come on top."""
    scoring = teacher_forwards(recovery) + candidate_forwards(recovery)
    found = estimate(recovery.scan, recovery.learn[0], 1, evaluations=scoring, sampling=sampling)
    steps = recovery.training.steps * len(recovery.candidates)
    wave_bytes = max(map(training_bytes, recovery.waves))
    gradient = GRADIENT_BYTES * max(one.parameters for one in recovery.candidates)
    return replace(
        found,
        seconds=found.seconds + steps * seconds_per_step(recovery),
        memory_bytes=found.memory_bytes + wave_bytes + gradient,
        block_evaluations=found.block_evaluations + steps,
        calls=len(recovery.learn) + len(recovery.test),
        waves=len(recovery.waves),
    )


def training_bytes(wave: Sequence[Candidate]) -> int:
    """Bytes of the candidates that are trained at once."""
    return sum(one.training_bytes for one in wave)


def teacher_forwards(recovery: Recovery) -> int:
    """Block forwards of the teacher, for training steps, scores and starts."""
    calls = recovery.training.steps + 2 * len(recovery.test) + 4 * len(recovery.first_group)
    return len(recovery.waves) * len(recovery.scan.blocks) * calls


def candidate_forwards(recovery: Recovery) -> int:
    """Block forwards of the starts, and of each candidate and the blocks after it when scored."""
    order = {place: index for index, place in enumerate(recovery.scan.blocks)}
    depth = len(order)
    scored = 0
    starts = 0
    for one in recovery.candidates:
        scored += depth - order[one.target.place] - (one.last - one.first)
        starts += len(one.starts) * len(recovery.first_group)
    return starts + 2 * scored * len(recovery.test)


def seconds_per_step(recovery: Recovery) -> float:
    """Of one candidate, its share of the teacher's forward included: the fastest of three steps."""
    first = recovery.candidates[0]
    block = recovery.block(first, first.start, torch.float32).requires_grad_(True)
    still = replace(recovery.training, lr=0.0)
    trainee = Trainee(first, block, optimizer(block, first.row, still))
    device = recovery.scan.replay.device
    seconds = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        recovery.fed.run(recovery.learn[0], [trainee], Trainee.learn)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    return min(seconds)
