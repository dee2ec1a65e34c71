"""Watching a distillation: fixed prompts are sampled now and then, and trackers get the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from .. import models
from ..comparison.scorers.base import score_pictures
from ..comparison.scorers.table import SCORERS
from ..comparison.statistics import Item
from ..distillation.processes import ALONE, Processes
from ..models.placement import free_text_encoders
from ..models.precision import bfloat16_autocast
from ..records import Progress, write_atomic
from . import trackers
from .context import Context
from .distill_work import DistillWork
from .prompts import general_of, read_prompts, scene_items

PICTURES = 4  # of a look, where the prompts are not the bundled scenes
PER_CATEGORY = 2  # of the bundled scenes
TIMES = 4  # looks in a run, unless it has fewer steps than SHORT
SHORT = 100


def watched(
    run: Iterator[Progress], work: DistillWork, context: Context, processes: Processes = ALONE
) -> Iterator[Progress]:
    """Pass a run's progress on; every `watch` steps (0: never), and when someone asks, sample the
    student, into samples/ of the job's folder.

    Metrics of such a step have `scene_score` where the prompts are the bundled scenes: the share of
    pictures that are right.
    """
    window = Window(work, context) if watch_every(work) else None
    with trackers.opened(work) as open_trackers:
        for progress in run:
            if is_due(work, progress, context, processes):
                window = window or Window(work, context)
                state = gathered_state(work, processes)
                metrics = {**progress.metrics, **window.look(progress.step, state)}
                progress = progress.model_copy(update={"metrics": metrics})
            numbers = {k: v for k, v in progress.metrics.items() if isinstance(v, int | float)}
            for tracker in open_trackers if numbers else []:
                tracker.log(numbers, step=progress.step)
            yield progress


def watch_every(work: DistillWork) -> int:
    """Steps between looks at the student; 0: never."""
    if work.spec.watch is not None:
        return work.spec.watch
    steps = work.stages.steps
    return steps // TIMES if steps >= SHORT else 0


def is_due(work: DistillWork, progress: Progress, context: Context, processes: Processes) -> bool:
    """Whether the student is sampled after this step, by plan or because someone asks the first
    process. Each process calls this after each step.
    """
    if not progress.metrics:
        return False
    every = watch_every(work)
    by_plan = bool(every and progress.step % every == 0)
    return processes.any(context.requested("sample")) or by_plan


def gathered_state(work: DistillWork, processes: Processes) -> dict[str, torch.Tensor] | None:
    """The whole state of a student that is split between processes.

    Each process calls this where a look is due; the first samples.
    """
    assert work.student is not None
    if not processes.sharded:
        return None
    return processes.state(work.student)


class Window:
    """The student in its teacher's pipeline, with the same prompts and seeds every time."""

    def __init__(self, work: DistillWork, context: Context) -> None:
        self.work = work
        self.folder = work.folder(context) / "samples"
        self.items: list[Item] = []  # for the scene score
        if work.spec.prompts:
            self.prompts = read_prompts(Path(work.spec.prompts))[:PICTURES]
        elif work.line.student.bundled:
            self.items = scene_items(PER_CATEGORY, "validation")
            self.prompts = [item["prompt"] for item in self.items]
        else:
            self.prompts = general_of(work.line.student)[:PICTURES]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "prompts.txt", "\n".join(self.prompts) + "\n")

    @torch.no_grad()
    def look(self, step: int, state: dict[str, torch.Tensor] | None = None) -> dict[str, float]:
        """Write pictures samples/step-<n>-<i>.png and return their score.

        state: of a student that is split between processes.
        """
        pipe = self.work.pipe
        assert pipe is not None and self.work.student is not None
        teacher = pipe.transformer
        device = next(teacher.parameters()).device
        pipe.transformer = self._whole(state, device) if state else self.work.student
        try:
            images = self._images(device)
        finally:
            pipe.transformer = teacher
            free_text_encoders(pipe)
        for number, image in enumerate(images):
            image.save(self.folder / f"step-{step:08d}-{number:02d}.png")
        if not self.items:
            return {}
        return {"scene_score": score_pictures(SCORERS["scenes"], images, self.items, []).overall}

    def _images(self, device: torch.device) -> list[Image.Image]:
        pipe = self.work.pipe
        assert pipe is not None
        # a student with weights in bfloat16 beside others computes in it, on a CPU too
        dtypes = {p.dtype for p in pipe.transformer.parameters()}
        narrow = device.type != "cpu" or len(dtypes) > 1
        images: list[Image.Image] = []
        sampling = self.work.sampling
        with bfloat16_autocast(device.type, narrow):
            for group in models.generate(
                pipe,
                self.prompts,
                seeds=range(len(self.prompts)),
                steps=sampling.steps,
                guidance=self._guidance(),
                size=sampling.size,
                negative=sampling.negative,
            ):
                images += group
        return images

    def _guidance(self) -> float:
        """1 where the student learns guided targets, which take its place; else the usual scale."""
        assert self.work.teacher is not None
        learned = any(stage.guidance is not None for stage in self.work.stages.stages)
        if learned and models.family_of(self.work.teacher).negative:
            return 1.0
        return self.work.sampling.guidance

    def _whole(self, state: dict[str, torch.Tensor], device: torch.device) -> nn.Module:
        """The student with this state, on one device: a split one takes all processes to run."""
        student = models.load_transformer(self.work.line.student.folder, device=str(device))
        student.load_state_dict(state)
        return student
