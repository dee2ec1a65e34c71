"""`workbench distill`: train a student in its recipe's stages."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

from ..distillation.processes import ALONE, Processes
from ..records import DistillSpec, Progress
from ..specs import DistillVerbSpec
from .context import Context
from .distill_estimate import estimate_for_devices, estimate_here, fit_steps, seconds_per_step
from .distill_watch import watched
from .distill_words import run_in_words, stage_in_words
from .distill_work import DistillWork, check_placement, stages_of
from .pace import comparable
from .rank_processes import started
from .rank_request import RankRequest


def distill(spec: DistillVerbSpec, context: Context) -> Iterator[Progress]:
    """Result: student, steps, seconds, samples_per_second, first_loss, last_loss, recoverability,
    guidance_gap, guidance_gap_cosine, skipped (of the data); with --estimate what it would take.
    """
    if spec.estimate and spec.devices:
        check_placement(spec)
        for progress in estimate_for_devices(spec, stages_of(spec), context.store):
            if progress.result is not None:
                print(progress.message, file=sys.stderr, flush=True)
                progress = progress.model_copy(update={"result": asdict(progress.result)})
            yield progress
        return
    work = DistillWork.of(spec, context)
    yield Progress(step=0, total=1, message="loading teacher and student")
    yield from work.prepare(context)
    if work.teacher is None:
        return  # asked to stop
    print(f"sampling: {work.sampling.in_words}", file=sys.stderr, flush=True)
    context.log(run_in_words(work, context))
    resume = context.resume and work.saved_stages.exists()
    if resume and (spec.minutes is not None or spec.estimate):
        work.stages = DistillSpec.load(work.saved_stages)
    elif spec.minutes is not None or spec.estimate:
        yield Progress(step=0, total=1, message="timing a few steps")
        if (yield from timed(work, context)):
            return
    processes: AbstractContextManager[Processes] = nullcontext(ALONE)
    if spec.processes > 1:
        request = RankRequest.of(work, context, resume)
        processes = started(request, spec.processes, context.device, work.folder(context))
    with processes as those:
        yield from finished(work, context, resume, those)


def timed(work: DistillWork, context: Context) -> Generator[Progress, None, bool]:
    """Time a few steps and fit the stages into the time limit; True where only an estimate was
    wanted.
    """
    assert work.student is not None and work.teacher is not None
    seconds = seconds_per_step(**work.trainees(), processes=work.spec.processes)
    if context.pace_file is not None:
        seconds = comparable(seconds, work, context.pace_file)
    if work.spec.minutes is not None:
        requested = work.stages.steps
        work.stages = fit_steps(work.stages, seconds, 60 * work.spec.minutes)
        line = fitted_in_words(requested, work.stages.steps, work.spec.minutes)
        if work.stages.steps != requested:
            work.shortened = line
        print(line, file=sys.stderr, flush=True)
        context.log(map(stage_in_words, work.stages.stages))
        yield Progress(step=0, total=1, message=line)
    if work.spec.estimate:
        result = estimate_here(work.stages, seconds, work.student, work.teacher)
        yield Progress(step=1, total=1, result=asdict(result))
    return work.spec.estimate


def fitted_in_words(requested: int, steps: int, minutes: float) -> str:
    if steps == requested:
        return f"all {steps} steps fit into {minutes:g} minutes"
    return f"{requested} steps requested, {steps} fit into {minutes:g} minutes"


def finished(
    work: DistillWork, context: Context, resume: bool, processes: Processes
) -> Iterator[Progress]:
    """Run the loop, keep its stages with the checkpoints, and index the student it writes."""
    for progress in watched(work.run(context, resume, processes), work, context, processes):
        result = progress.result
        if result is None:
            if not work.saved_stages.exists():
                work.stages.save(work.saved_stages)
            if work.shortened:
                message = f"{progress.message}; {work.shortened}"
                progress = progress.model_copy(update={"message": message})
            yield progress
        elif not result.get("stopped"):
            context.store.add("student", work.out)
            yield progress.model_copy(update={"result": {**result, "skipped": work.sets.skipped}})
