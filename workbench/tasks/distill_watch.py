"""Watching a distillation: fixed prompts sampled now and then, the demo's scene score of them, and
trackers that take the metrics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import models
from ..comparison.scorers.base import score_pictures
from ..comparison.scorers.table import SCORERS
from ..distillation.processes import ALONE, Processes
from ..records import BadInput, Progress, write_atomic
from .context import Context
from .prompts import GENERAL_PROMPTS, read_prompts, scenes

if TYPE_CHECKING:
    from .distill import Work

# TIMES a run, unless it has fewer steps than SHORT
PICTURES, PER_CATEGORY, TIMES, SHORT = 4, 2, 4, 100


def along(
    run: Iterator[Progress], job: Work, context: Context, processes: Processes = ALONE
) -> Iterator[Progress]:
    """Pass a run's progress on; every `watch` steps (0: never) sample the student, into samples/ of
    the job's folder.

    Metrics of such a step hold `scene_score` where the prompts are the demo's scenes: share of
    pictures that are right.
    """
    window = Window(job, context) if watch_every(job) else None
    trackers = started(job, job.spec.get("trackers") or [])
    try:
        for progress in run:
            if window is not None and due(job, progress):
                seen = window.look(progress.step, gathered(job, progress, processes))
                progress = progress.model_copy(update={"metrics": {**progress.metrics, **seen}})
            for tracker in trackers if progress.metrics else ():
                tracker.log(
                    {k: v for k, v in progress.metrics.items() if isinstance(v, int | float)},
                    step=progress.step,
                )
            yield progress
    finally:
        for tracker in trackers:
            finish(tracker)


def watch_every(job: Work) -> int:
    total = sum(stage.steps for stage in job.wanted.stages)
    if job.spec.get("watch") is not None:
        return int(job.spec["watch"])
    return total // TIMES if total >= SHORT else 0


def due(job: Work, progress: Progress) -> bool:
    """Whether the student is sampled after this step."""
    every = watch_every(job)
    return bool(every and progress.metrics and progress.step % every == 0)


def gathered(job: Work, progress: Progress, processes: Processes) -> dict[str, torch.Tensor] | None:
    """The whole state of a student that is split between processes, where it is due: each calls
    this after each step, the first samples.
    """
    assert job.student is not None
    return processes.state(job.student) if processes.sharded and due(job, progress) else None


class Window:
    """The student in its teacher's pipeline, with the same prompts and seeds every time."""

    def __init__(self, job: Work, context: Context) -> None:
        self.job, self.folder = job, job.folder(context) / "samples"
        self.items: list[dict[str, Any]] = []
        if job.spec.get("prompts"):
            self.prompts = read_prompts(Path(job.spec["prompts"]))[:PICTURES]
        elif job.line.student.bundled:
            pairs = scenes(PER_CATEGORY, "validation")
            self.prompts = [caption for caption, _ in pairs]
            self.items = [
                {"prompt": caption, "scene": scene, "category": scene["category"]}
                for caption, scene in pairs
            ]
        else:
            self.prompts = list(GENERAL_PROMPTS[:PICTURES])
        self.how = job.line.student.sampling.changed(
            steps=job.spec.get("sampling_steps"), size=job.spec.get("size")
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "prompts.txt", "\n".join(self.prompts) + "\n")

    def _whole(self, state: dict[str, torch.Tensor], device: torch.device) -> torch.nn.Module:
        """The student with this state, on one device for the time of a look: a split one takes all
        processes to run.
        """
        student = models.load_transformer(self.job.line.path, device=str(device))
        student.load_state_dict(state)
        return student

    @torch.no_grad()
    def look(self, step: int, state: dict[str, torch.Tensor] | None = None) -> dict[str, float]:
        """Pictures samples/step-<n>-<i>.png, and their score. state: of a student that is split
        between processes.
        """
        pipe, teacher = self.job.pipe, self.job.pipe.transformer
        learned = [stage.guidance for stage in self.job.wanted.stages if stage.guidance is not None]
        # guided targets take its place
        guidance = 1.0 if learned and models.family_of(teacher).negative else self.how.guidance
        device = next(teacher.parameters()).device
        narrow = (
            torch.autocast(device.type, torch.bfloat16)
            if device.type != "cpu"
            else contextlib.nullcontext()
        )
        images: list[Any] = []
        try:
            pipe.transformer = self._whole(state, device) if state else self.job.student
            with narrow:
                for group in models.generate(
                    pipe,
                    self.prompts,
                    seeds=range(len(self.prompts)),
                    steps=self.how.steps,
                    guidance=guidance,
                    size=self.how.size,
                ):
                    images += group
        finally:
            pipe.transformer = teacher
        for number, image in enumerate(images):
            image.save(self.folder / f"step-{step:08d}-{number:02d}.png")
        if not self.items:
            return {}
        return {"scene_score": score_pictures(SCORERS["scenes"], images, self.items, []).overall}


# --- trackers -------------------------------------------------------------------------------------


def started(job: Work, names: list[str]) -> list[Any]:
    """accelerate's trackers (trackio, tensorboard, ..), imported when asked for; TensorBoard's
    files lie beside the student.
    """
    if not names:
        return []
    from accelerate.state import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()
    out = []
    for name in names:
        kind = LOGGER_TYPE_TO_CLASS.get(name)
        if kind is None:
            raise BadInput(
                f"tracker {name!r}", "one of " + ", ".join(LOGGER_TYPE_TO_CLASS), "choose one"
            )
        where = (
            {"logging_dir": str(job.out.parent / "tracking")}
            if kind.requires_logging_directory
            else {}
        )
        tracker = kind(job.out.name, **where)
        try:
            tracker.start()
        except ImportError:
            raise BadInput(
                f"tracker {name} is not installed", f"the package {name}", f"pip install {name}"
            ) from None
        tracker.store_init_configuration(
            {
                "stages": ", ".join(stage.name for stage in job.wanted.stages),
                "student": str(job.line.path),
                "spec": job.wanted.digest,
            }
        )
        out.append(tracker)
    return out


def finish(tracker: Any) -> None:
    """Close a tracker. accelerate's way leaves trackio's run the current one: it would be closed
    again, and say so on stdout, at exit.
    """
    if tracker.name == "trackio":
        import trackio

        trackio.finish()
    else:
        tracker.finish()
