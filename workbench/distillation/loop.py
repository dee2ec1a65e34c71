"""The loop: stages, steps, checkpoints in time, and the student's folder at the end."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..models.host_memory import Host
from ..records import BadInput, DistillSpec, Plan, Progress
from ..training.batch_source import Source
from .checkpoints import Checkpoints
from .folder import write_student
from .processes import ALONE, Processes
from .run import Run
from .trainable import Scores


def distill(
    student: nn.Module,
    teacher: nn.Module,
    plan: Plan,
    spec: DistillSpec,
    source: Source,
    *,
    sources: Mapping[str, Source] | None = None,
    out: Path | str | None = None,
    base: Path | str | None = None,
    checkpoint_folder: Path | str | None = None,
    resume: bool = False,
    checkpoint_every: float = 120.0,
    keep: int = 2,
    stop: Callable[[], bool] = lambda: False,
    save_now: Callable[[], bool] = lambda: False,
    scores: Scores | None = None,
    original: tuple[nn.Module, Plan] | None = None,
    gradient_checkpointing: bool = False,
    processes: Processes = ALONE,
    facts: Mapping[str, Any] | None = None,
    host: Host | None = None,
) -> Iterator[Progress]:
    """Train `student` in place, stage after stage; a Progress per step, the result in the last one.

    plan: spans of `teacher` (the direct parent). original: the first teacher of the chain and the
    student's plan over it, for stages with `teacher: original`; without it the parent serves.
    sources: by name, for stages with `data`. out: where the student's folder is written, everything
    but its weights taken from `base`, the folder `student` was loaded from. checkpoint_folder:
    default `<out>.checkpoints`; written every `checkpoint_every` seconds, and when `stop()` or
    `save_now()` says so, the newest `keep` kept, and removed when the student is written. A resumed
    run ends bit for bit as an uninterrupted one of the same thread and process count. scores: for
    stages with a `scale`.
    processes: those that share the work; each runs this loop, the first one writes. facts: about
    the run, for its result and the student's card. host: where blocks of the student wait that a
    stage does not run; None: the host of the teacher's device. A student may come on the CPU: what a
    stage needs is brought to the teacher's device. At the end it is where it came from.

    Result: student (folder or null), steps, seconds, samples_per_second, first_loss and last_loss
    (means over the first and last ten steps of the last stage), recoverability (per stage and span:
    loss before and after training, where the stage has a teacher), guidance_gap and its cosine (of
    the student at the end; null for models of one branch), or {"stopped": true, "step"}.
    Raises BadInput where a loss stops being finite.
    """
    first = next(student.parameters())
    home, stored = first.device, first.dtype
    teachers = {"parent": (teacher, plan), "original": original or (teacher, plan)}
    prepare_models(student, [model for model, _ in teachers.values()], processes)
    if gradient_checkpointing:
        checkpoint_blocks(student)
    folder = folder_of_checkpoints(out, checkpoint_folder)
    key = hashlib.sha256((spec.digest + plan.digest).encode()).hexdigest()[:12]
    checkpoints = Checkpoints(folder, keep, processes)
    run = Run(student, spec, source, teachers, scores, checkpoints, key, sources, processes, host)
    if resume:
        run.restore()
    elif folder and folder.exists() and processes.first:
        shutil.rmtree(folder)
    timer = _Timer(folder is not None, checkpoint_every, save_now)
    stopped = yield from _stages(run, timer, stop)
    run.trainees.memory.release()
    if stopped:
        return
    result = {"student": str(out) if out else None, **run.summary(), **(facts or {})}
    state = processes.state(student)  # every process takes part
    if processes.first and out:
        write_student(student, state, stored, Path(out), base, spec, result)
    if processes.first:
        checkpoints.remove()
    if not processes.sharded:
        nn.Module.to(student, home, stored)
    yield Progress(step=spec.steps, total=spec.steps, message="done", result=result)


@dataclass
class _Timer:
    """When the next checkpoint is due, by the time or because someone asks for it; never, where
    there is no folder for it.
    """

    on: bool
    every: float  # seconds
    asked: Callable[[], bool]

    def __post_init__(self) -> None:
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        asked = self.asked()
        return self.on and (asked or time.monotonic() - self.last >= self.every)


def _stages(run: Run, timer: _Timer, stop: Callable[[], bool]) -> Generator[Progress, None, bool]:
    """Run what is left of the stages; returns whether it was asked to stop."""
    total = run.spec.steps
    for _ in range(run.at.index, len(run.spec.stages)):
        for message in run.fit():
            yield Progress(step=run.done, total=total, message=message)
            if run.processes.any(stop()):  # a resumed run fits again
                result = {"stopped": True, "step": run.done}
                yield Progress(step=run.done, total=total, message="stopped", result=result)
                return True
        run.begin()
        while run.at.step < run.stage.steps:
            if run.processes.any(stop()):
                run.save()
                result = {"stopped": True, "step": run.done}
                yield Progress(step=run.done, total=total, message="stopped", result=result)
                return True
            metrics = run.advance()
            yield Progress(step=run.done, total=total, message=run.stage.name, metrics=metrics)
            if run.processes.any(timer.due):
                run.save()
                timer.last = time.monotonic()
        run.finish()
    return False


def prepare_models(student: nn.Module, teachers: list[nn.Module], processes: Processes) -> None:
    """Freeze the teachers, and split what is to be split, the student in float32.

    The optimizer works on float32; a stage's `precision` says what the forward computes in. A
    student that is not split is brought to float32 stage by stage, where it trains (StudentMemory).
    """
    student.eval()
    if processes.sharded and any(p.dtype != torch.float32 for p in student.parameters()):
        nn.Module.to(student, torch.float32)
    for model in {id(model): model for model in (student, *teachers)}.values():
        model.requires_grad_(model is student)
        processes.shard(model)


def checkpoint_blocks(student: nn.Module) -> None:
    """Gradient checkpointing: keep only each block's inputs, and run it again for its backward.

    diffusers' own function passes no keywords, without which HunyuanImage's forward fails. Raises
    BadInput for a class that does not support it.
    """
    if not getattr(student, "_supports_gradient_checkpointing", False):
        raise BadInput(
            f"gradient checkpointing of {type(student).__name__}",
            "a class whose forward supports it",
            "leave --checkpointing out",
        )
    student.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))  # type: ignore[operator]


def folder_of_checkpoints(out: Path | str | None, given: Path | str | None) -> Path | None:
    if given:
        return Path(given)
    return Path(out).with_name(f"{Path(out).name}.checkpoints") if out else None
