"""`workbench demo`: the bundled teacher is planned, built, distilled and compared, in minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..comparison.statistics import Item, paired_difference
from ..records import Comparison, ModelResult, Plan, Progress
from ..specs import BuildSpec, CompareSpec, DemoSpec, DistillVerbSpec, PlanSpec, ProfileSpec
from .compare import PER_CATEGORY
from .compare_checks import check_model, check_out
from .context import Context
from .known_maps import bundled_map
from .launch import generator

NAMES = ("teacher", "student-built", "student")
QUICK_STEPS = 10  # sampling steps of a map, where none is bundled
MANY_STEPS = 1_000_000  # more than any time allows: the minutes decide
LEAST_MINUTES = 0.001  # for 0: one step per stage
# What each stage takes here, in seconds; distillation is given its time.
SECONDS = {"profile": 120, "plan": 2, "build": 8, "data": 50, "distill": 0, "compare": 200}


def demo(spec: DemoSpec, context: Context) -> Iterator[Progress]:
    """Result: seconds, models, page, plan and depth.

    A stopped demo goes on where it was: the plan and the built student are there, distillation has
    its checkpoint.
    """
    began = time.monotonic()
    files = Files.of(spec, context)
    check_out(files.out)
    check_model("demo", context)  # a broken installation is reported before any work
    stages = Stages(spec.minutes)
    for name, stage_spec in stages_left(spec, files, context):
        yield from stages.run(name, generator(name, stage_spec, context))
        if stages.stopped:
            return
    comparison = Comparison.load(files.out / "comparison.json")
    result = {
        "seconds": time.monotonic() - began,
        "models": model_rows(comparison),
        "page": str(files.out / "index.html"),
        "plan": str(files.plan),
        "depth": Plan.load(files.plan).depth(),
    }
    yield Progress(step=stages.total, total=stages.total, message="done", result=result)


@dataclass(frozen=True)
class Files:
    """Where the demo puts what it makes."""

    plan: Path
    built: Path
    student: Path
    out: Path

    @classmethod
    def of(cls, spec: DemoSpec, context: Context) -> Files:
        """Named by the job, so that it finds them when it goes on."""
        name = context.folder.name if context.folder else "demo"
        workspace = context.store.workspace
        return cls(
            plan=workspace / "plans" / f"{name}.yaml",
            built=workspace / "students" / f"{name}-built",
            student=workspace / "students" / f"{name}-student",
            out=Path(spec.out or workspace / "comparisons" / name).absolute(),
        )


def stages_left(
    spec: DemoSpec, files: Files, context: Context
) -> Iterator[tuple[str, ProfileSpec | PlanSpec | BuildSpec | DistillVerbSpec | CompareSpec]]:
    """(verb, spec) of what is still to be done, one after the other."""
    if bundled_map(check_model("demo", context).description) is None:
        steps = spec.sampling_steps or QUICK_STEPS
        yield (
            "profile",
            ProfileSpec(teacher="demo", timesteps=4, sampling_steps=steps, edits=["drop"]),
        )
    if not files.plan.exists():
        yield "plan", plan_spec(files.plan)
    if not (files.built / "card.json").exists():
        yield "build", BuildSpec(plan=str(files.plan), out=str(files.built))
    if not (files.student / "card.json").exists():
        yield (
            "distill",
            DistillVerbSpec(
                student=str(files.built),
                out=str(files.student),
                recipe="workbench",
                steps=MANY_STEPS,
                minutes=max(spec.minutes, LEAST_MINUTES),
                scenes=spec.scenes,
            ),
        )
    yield (
        "compare",
        CompareSpec(
            models=["demo", str(files.built), str(files.student)],
            names=list(NAMES),
            out=str(files.out),
            suite="scenes",
            scorers=["scenes", "ssim"],
            sampling_steps=spec.sampling_steps,
            prompts_per_category=spec.prompts_per_category or PER_CATEGORY,
        ),
    )


def plan_spec(out: Path) -> PlanSpec:
    """Averaged pairs that, but for the first, only read the text.

    Neighbours of this teacher are alike by construction, so this needs no measurement.
    """
    return PlanSpec(
        teacher="demo",
        out=str(out),
        rule="uniform",
        keep=12,
        init="mean",
        gain="length",
        slim_from=1,
    )


@dataclass
class Stages:
    """Several verbs as one progress bar, in seconds that they are expected to take."""

    minutes: float  # of distillation
    stopped: bool = False
    step: int = 0
    seconds: dict[str, int] = field(init=False)
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = {**SECONDS, "distill": int(60 * self.minutes)}
        self.total = sum(self.seconds.values()) - self.seconds["profile"]  # a map is bundled

    def run(self, verb: str, work: Iterator[Progress]) -> Iterator[Progress]:
        """Pass a verb's progress on; `stopped` where it ended without a result."""
        finished = False
        for progress in work:
            finished = progress.result is not None
            self.step = max(self.step, self.seconds_done(verb, progress))
            metrics = {}
            if verb == "distill" and progress.metrics:
                metrics = {"step": progress.step, **progress.metrics}
            yield Progress(
                step=self.step, total=self.total, message=message(verb, progress), metrics=metrics
            )
        self.stopped = not finished

    def seconds_done(self, verb: str, progress: Progress) -> int:
        stage = verb
        if verb == "distill" and not progress.metrics and progress.result is None:
            stage = "data"  # training steps have metrics; what comes before them fills the cache
        names = list(self.seconds)
        before = sum(self.seconds[name] for name in names[1 : names.index(stage)])
        share = progress.step / max(progress.total, 1)
        if progress.result is not None:
            share = 1.0
        return before + int(self.seconds[stage] * share)


def message(verb: str, progress: Progress) -> str:
    if progress.total > 1:
        return f"{verb} {progress.step}/{progress.total} {progress.message}".strip()
    return f"{verb} {progress.message}".strip()


def model_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """The three models with their scene scores (shares of 1), intervals, and the student's paired
    gain over the built one.
    """
    rows = [model_row(model) for model in comparison.models]
    built, student = (model.scores["scenes"].per_image for model in comparison.models[1:3])
    if built is not None and student is not None:
        gain = paired_difference(student, built, items_of(comparison))
        rows[2]["gain_over_built"] = gain.model_dump()
    return rows


def model_row(model: ModelResult) -> dict[str, Any]:
    score = model.scores["scenes"]
    difference = model.difference.get("scenes")
    return {
        "name": model.name,
        "parameters": model.parameters,
        "ms_per_step": model.ms_per_step,
        "source": model.source,
        "scores": {"overall": score.overall, **score.by_category},
        "interval": [score.low, score.high],
        "intervals": score.intervals,
        "retention": model.retention["scenes"],
        "ssim": model.scores["ssim"].overall,
        "difference": difference.model_dump() if difference else None,
    }


def items_of(comparison: Comparison) -> list[Item]:
    """The suite's item of each picture."""
    items: list[Item] = []
    for index, prompt in enumerate(comparison.prompts):
        item: dict[str, Any] = {"prompt": prompt, "index": index}
        if comparison.categories:
            item["category"] = comparison.categories[index]
        items += [item] * len(comparison.seeds)
    return items
