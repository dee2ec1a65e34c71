"""The kind that trains: distill. It finds the teachers from the student's card, fills the data
cache, and drives the loop.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from .. import models, plans
from ..distillation.loop import distill as train
from ..distillation.processes import ALONE, Processes
from ..records import BadInput, DistillSpec, Plan, Progress, SensitivityMap
from ..training.source import LatentSource
from . import distill_estimate as pacing
from . import distill_ranks as ranks
from . import distill_watch as watching
from .context import Context
from .info import bundled_map, describe
from .lineage import Lineage, lineage
from .resolve import Sampling
from .training_data import EndlessScenes, content, sources


def distill(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: student, recipe | spec, steps (of training), minutes, data, scenes, square, size and
    sampling_steps (of latents sampled from prompts), sensitivity, resume, estimate, for,
    checkpoint_every, keep, processes, shard, checkpointing, watch, prompts, trackers, out."""
    if spec.get("estimate") and spec.get("for"):
        wanted, how = (
            with_steps(spec_of(spec), spec.get("steps")),
            Sampling(size=int(spec.get("size") or Sampling().size)),
        )
        yield Progress(
            step=1,
            total=1,
            result=pacing.for_devices(spec["student"], wanted, spec["for"], how, context.store),
        )
        return
    job = Work.of(spec, context)
    yield Progress(step=0, total=1, message="loading teacher and student")
    for progress in prepared(job, context):
        if progress.result is None:
            yield progress
    if job.teacher is None:
        return  # told to stop
    resume = context.resume and (job.checkpoints / "spec.yaml").exists()
    if spec.get("minutes") is not None or spec.get("estimate"):
        if resume:
            job.wanted = DistillSpec.load(job.checkpoints / "spec.yaml")
        else:
            yield Progress(step=0, total=1, message="timing a few steps")
            done = yield from paced(job, context)
            if done:
                return
    count = int(spec.get("processes") or 1)
    several = (
        ranks.started(job.given(context, resume), count, context.device, job.folder(context))
        if count > 1
        else nullcontext(ALONE)
    )
    with several as processes:
        yield from watched(
            job,
            train(**job.arguments(), **job.options(context, resume), processes=processes),
            context,
            processes,
        )


def follow(given: dict[str, Any], context: Context, processes: Processes) -> None:
    """A process behind the first: the same loop on its part of every batch, until the first has
    ended it.
    """
    job = Work.of(given["spec"], context)
    job.wanted = DistillSpec.parse(given["wanted"], "the first process's spec")
    job.load(context, given["sources"], given["endless"])
    for progress in train(
        **job.arguments(), **job.options(context, given["resume"]), processes=processes
    ):
        watching.gathered(job, progress, processes)


@dataclass
class Work:
    """A distillation made ready: what is trained, by whom, on what, and where to."""

    spec: dict[str, Any]
    line: Lineage
    wanted: DistillSpec
    scores: dict[tuple[str, int], float] | None
    out: Path
    sources: dict[str | None, Any] = field(default_factory=dict)
    teacher: nn.Module | None = None
    student: nn.Module | None = None
    original: tuple[nn.Module, Plan] | None = None
    pipe: Any = None  # of the original teacher, for its text encoder and VAE

    @classmethod
    def of(cls, spec: dict[str, Any], context: Context) -> Work:
        """Everything that can be refused before a model is loaded."""
        line = lineage(spec["student"], context)
        wanted = with_steps(spec_of(spec), spec.get("steps"))
        for data in (spec.get("data"), *(stage.data for stage in wanted.stages)):
            content(data)
        count, smallest = (
            int(spec.get("processes") or 1),
            min(stage.batch for stage in wanted.stages),
        )
        if count > smallest:
            raise BadInput(
                f"{count} processes for a batch of {smallest}",
                "at least a sample for each",
                "lower --processes or raise batch",
            )
        out = Path(
            spec.get("out") or context.store.out("student", f"{line.path.name}-{wanted.name}")
        ).absolute()
        check_out(out, line.path)
        return cls(spec, line, wanted, scores_for(wanted, spec, line, context), out)

    @property
    def checkpoints(self) -> Path:
        return self.out.with_name(f"{self.out.name}.checkpoints")

    def folder(self, context: Context) -> Path:
        """For the logs of other processes, and for samples."""
        return context.folder or self.out.with_name(f"{self.out.name}.watch")

    def load(self, context: Context, folders: dict[str, str], endless: list[str]) -> None:
        """The models and the caches (the run's own is called ""), without the pipeline: the first
        process fills what has no end.
        """
        self.models(context, models.load_transformer(self.line.teacher, device=context.device))
        self.sources = {
            name or None: EndlessScenes(None, Path(folder))
            if name in endless
            else LatentSource.from_folder(folder)
            for name, folder in folders.items()
        }

    def models(self, context: Context, teacher: nn.Module) -> None:
        self.teacher = teacher
        self.student = models.load_transformer(self.line.path, device=context.device)
        if self.line.original:
            self.original = (
                models.load_transformer(self.line.original[0], device=context.device),
                self.line.original[1],
            )

    def arguments(self) -> dict[str, Any]:
        """What the loop trains; the probe takes the same."""
        others = {name: source for name, source in self.sources.items() if name is not None}
        return {
            "student": self.student,
            "teacher": self.teacher,
            "plan": self.line.plan,
            "spec": self.wanted,
            "source": self.sources[None],
            "sources": others,
            "scores": self.scores,
            "original": self.original,
            "gradient_checkpointing": bool(self.spec.get("checkpointing")),
        }

    def options(self, context: Context, resume: bool) -> dict[str, Any]:
        return {
            "out": self.out,
            "base": self.line.path,
            "resume": resume,
            "stop": context.stop,
            "keep": int(self.spec.get("keep") or 2),
            "checkpoint_every": float(self.spec.get("checkpoint_every") or 60),
        }

    def given(self, context: Context, resume: bool) -> dict[str, Any]:
        """For the other processes."""
        spec = {
            name: value
            for name, value in self.spec.items()
            if name not in ("minutes", "steps", "estimate", "recipe")
        }
        return {
            "spec": {**spec, "spec": self.wanted.model_dump(mode="json"), "out": str(self.out)},
            "resume": resume,
            "wanted": self.wanted.model_dump(mode="json"),
            "workspace": str(context.store.workspace),
            "shard": bool(spec.get("shard")),
            "sources": {name or "": str(source.folder) for name, source in self.sources.items()},
            "endless": [
                name or ""
                for name, source in self.sources.items()
                if isinstance(source, EndlessScenes)
            ],
        }


def paced(job: Work, context: Context) -> Generator[Progress, None, bool]:
    """Time a few steps, and fit the steps to the minutes; True where an estimate was all that was
    asked for.
    """
    pace = pacing.seconds_per_step(**job.arguments(), processes=int(job.spec.get("processes") or 1))
    if context.pace_file is not None:
        teacher = job.original[0] if job.original else job.teacher
        assert teacher is not None
        narrow = any(stage.precision == "bfloat16" for stage in job.wanted.stages)
        pace = pacing.as_at_first(
            pace,
            pacing.teacher_seconds(teacher, job.sources[None], narrow),
            context.pace_file,
        )
    if job.spec.get("minutes") is not None:
        job.wanted = pacing.fitted(job.wanted, pace, 60 * float(job.spec["minutes"]))
    if job.spec.get("estimate"):
        assert job.student is not None and job.teacher is not None
        yield Progress(
            step=1, total=1, result=pacing.estimate(job.wanted, pace, job.student, job.teacher)
        )
    return bool(job.spec.get("estimate"))


def watched(
    job: Work, run: Iterator[Progress], context: Context, processes: Processes = ALONE
) -> Iterator[Progress]:
    """Pass the loop's progress on; keep its spec with the checkpoints; index the student it writes."""
    for progress in watching.along(run, job, context, processes):
        if isinstance(progress.result, dict) and progress.result.get("stopped"):
            return
        if progress.result is None and not (job.checkpoints / "spec.yaml").exists():
            job.wanted.save(job.checkpoints / "spec.yaml")
        if progress.result is not None:
            context.store.add("student", job.out)
        yield progress


def spec_of(spec: dict[str, Any]) -> DistillSpec:
    """The distillation spec: a file, a recipe's, or the recipe `workbench`."""
    if spec.get("spec") and spec.get("recipe"):
        raise BadInput("both --recipe and --spec", "one of them", "leave one out")
    if isinstance(spec.get("spec"), dict):
        return DistillSpec.parse(spec["spec"], "spec")
    if spec.get("spec"):
        return DistillSpec.load(spec["spec"])
    from ..recipes import table as recipes

    return recipes.load(spec.get("recipe") or "workbench").distill


def with_steps(wanted: DistillSpec, steps: int | None) -> DistillSpec:
    """The same stages with `steps` steps in all, shared as before; the last stage takes what
    rounding leaves.
    """
    total = sum(stage.steps for stage in wanted.stages)
    if steps is None or steps == total:
        return wanted
    shares = [round(steps * stage.steps / total) if total else 0 for stage in wanted.stages]
    shares[-1] += steps - sum(shares)
    stages = [
        stage.model_copy(update={"steps": n, "warmup": min(stage.warmup, n // 5)})
        for stage, n in zip(wanted.stages, shares, strict=True)
    ]
    return wanted.model_copy(update={"stages": stages})


def scores_for(
    wanted: DistillSpec, spec: dict[str, Any], line: Lineage, context: Context
) -> dict[tuple[str, int], float] | None:
    """Sensitivity per teacher block, for stages that scale by it: the given map, the plan's, the
    newest of what a prediction loses, the bundled one. Raises BadInput for a map that has no scores
    of dropped blocks."""
    given = spec.get("sensitivity")
    if given is None and all(stage.scale == "none" for stage in wanted.stages):
        return None
    known = context.store.find("map", given or line.card.sensitivity or "")
    newest = [
        row
        for row in context.store.maps(line.card.teacher_fingerprint)
        if row.metric == "prediction"
    ]
    if given and (known is None or Path(given).exists()):
        found: SensitivityMap | None = SensitivityMap.load(given)
    elif known or newest:
        found = SensitivityMap.load((known or newest[0]).path)
    else:
        found = bundled_map(describe(line.card.teacher, context.store))
    if found is None:
        return None
    if not (scores := plans.block_scores(found)):
        raise BadInput(
            f"the map of metric {found.metric} has no scores of dropped blocks",
            "a map with edit drop",
            "pass --sensitivity map.json, of `workbench profile`",
        )
    return scores


def check_out(out: Path, student: Path) -> None:
    if out.resolve() == student.resolve():
        raise BadInput(f"-o {out} is the student itself", "another folder", "choose another -o")
    if out.exists() and not (out / "card.json").is_file():
        raise BadInput(
            f"{out} exists and is no student (no card.json)",
            "a new folder or a student to replace",
            "choose another -o",
        )


def prepared(job: Work, context: Context) -> Iterator[Progress]:
    """Fill the data caches and load the models into `job`; without a teacher there where it was
    told to stop.
    """
    line, spec = job.line, job.spec
    # the original's VAE and text encoder are the student's too
    origin = line.original[0] if line.original else line.teacher
    demo = line.student.bundled
    how = line.student.sampling.changed(steps=spec.get("sampling_steps"), size=spec.get("size"))
    job.pipe = models.load_pipeline(origin, device=context.device)
    names = [None, *dict.fromkeys(stage.data for stage in job.wanted.stages if stage.data)]
    for progress in sources(
        job.pipe,
        spec,
        names,
        how,
        line.card.original_fingerprint,
        demo,
        context.store.workspace,
        context.stop,
    ):
        if progress.result is None:
            yield progress
            continue
        job.sources = progress.result
        job.models(
            context,
            job.pipe.transformer
            if line.original is None
            else models.load_transformer(line.teacher, device=context.device),
        )
