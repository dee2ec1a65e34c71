"""The loop: stages, steps, checkpoints in time, and the student's folder at the end."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..records import BadInput, DistillSpec, Plan, Progress
from ..training import Source
from .checkpoints import Checkpoints
from .folder import write_student
from .parallel import ALONE, Processes
from .run import Run
from .trained import Scores


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
    scores: Scores | None = None,
    original: tuple[nn.Module, Plan] | None = None,
    gradient_checkpointing: bool = False,
    processes: Processes = ALONE,
) -> Iterator[Progress]:
    """Train `student` in place, stage after stage; a Progress per step, the result in the last one.

    plan: spans of `teacher` (the direct parent). original: the first teacher of the chain and the
    student's plan over it, for stages with `teacher: original`; without it the parent serves.
    sources: by name, for stages with `data`. out: where the student's folder is written, everything
    but its weights taken from `base`, the folder `student` was loaded from. checkpoint_folder:
    default `<out>.checkpoints`; written every `checkpoint_every` seconds and when `stop()` says so,
    the newest `keep` kept, and removed when the student is written. A resumed run ends bit for bit
    as an uninterrupted one of the same thread and process count. scores: for stages with a `scale`.
    processes: those that share the work; each runs this loop, the first one writes.

    Result: student (folder or null), steps, seconds, samples_per_second, first_loss and last_loss
    (means over the first and last ten steps of the last stage), recoverability (per stage and span:
    loss before and after training, where the stage has a teacher), or {"stopped": true, "step"}.
    Raises BadInput where a loss stops being finite.
    """
    stored = next(student.parameters()).dtype
    # the optimizer works on float32; `precision` says what the forward computes in
    nn.Module.to(student.eval(), torch.float32)
    if gradient_checkpointing:
        checkpoint_blocks(student)
    for model in {id(m): m for m in (student, teacher, *(original or ())[:1])}.values():
        assert isinstance(model, nn.Module)
        model.requires_grad_(model is student)
        processes.shard(model)
    folder = _checkpoint_folder(out, checkpoint_folder)
    key = hashlib.sha256((spec.digest + plan.digest).encode()).hexdigest()[:12]
    teachers = {"parent": (teacher, plan), "original": original or (teacher, plan)}
    run = Run(
        student,
        spec,
        source,
        teachers,
        scores,
        Checkpoints(folder, keep, processes),
        key,
        sources or {},
        processes,
    )
    if resume:
        run.restore()
    elif folder and folder.exists() and processes.first:
        shutil.rmtree(folder)
    saved = time.monotonic()
    for _ in range(run.index, len(spec.stages)):
        run.begin()
        while run.step < run.stage.steps:
            if processes.any(stop()):
                run.save()
                yield Progress(
                    step=run.done,
                    total=run.total,
                    message="stopped",
                    result={"stopped": True, "step": run.done},
                )
                return
            metrics = run.advance()
            yield Progress(step=run.done, total=run.total, message=run.stage.name, metrics=metrics)
            if folder and processes.any(time.monotonic() - saved >= checkpoint_every):
                run.save()
                saved = time.monotonic()
        run.finish()
    result = {"student": str(out) if out else None, **run.summary()}
    state = processes.state(student)  # every process takes part
    if processes.first and out:
        write_student(student, state, stored, Path(out), base, spec, result)
    if processes.first and folder:
        shutil.rmtree(folder, ignore_errors=True)
    if not processes.sharded:
        nn.Module.to(student, stored)
    yield Progress(step=run.total, total=run.total, message="done", result=result)


def checkpoint_blocks(student: nn.Module) -> None:
    """Gradient checkpointing: of each block that the model's forward calls, keep the inputs alone,
    and run it again for its backward.

    diffusers' own function passes no keywords, without which HunyuanImage's forward fails. Raises
    BadInput for a class without.
    """
    if not getattr(student, "_supports_gradient_checkpointing", False):
        raise BadInput(
            f"gradient checkpointing of {type(student).__name__}",
            "a class whose forward has it",
            "leave --checkpointing out",
        )
    student.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False))  # type: ignore[operator]


def _checkpoint_folder(out: Path | str | None, given: Path | str | None) -> Path | None:
    if given:
        return Path(given)
    return Path(out).with_name(f"{Path(out).name}.checkpoints") if out else None
