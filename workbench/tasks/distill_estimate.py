"""How long and how large a distillation is: a short probe, and fitting steps to a time. The
arithmetic is in distill.estimating.
"""

from __future__ import annotations

import copy
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..distillation.estimate import Devices, on_paper
from ..distillation.loop import distill as train
from ..plans import tokens_of
from ..records import BadInput, Card, DistillSpec, Plan, Stage, write_atomic
from ..training.source import Source
from ..workspace.store import Store
from .info import describe
from .resolve import Sampling

WARM_UP, MEASURED = 2, 5  # optimizer steps
FORWARD = 16  # samples of a forward that is timed


def probed(stage: Stage, processes: int, cpu: bool) -> Stage:
    """The stage as it is timed: a few steps. Of several processes each has a GPU and a share of the
    batch, or they share the processor, which then has the whole batch to do."""
    batch = stage.batch if cpu else -(-stage.batch // processes)
    return stage.model_copy(update={"steps": WARM_UP + MEASURED, "warmup": 0, "batch": batch})


def seconds_per_step(
    student: nn.Module,
    teacher: nn.Module,
    plan: Plan,
    spec: DistillSpec,
    source: Source,
    processes: int = 1,
    **options: Any,
) -> list[float]:
    """Seconds of an optimizer step of each stage, on copies of the student: the middle one of those
    measured after the warm-up. Of several processes the largest share is timed, without the
    exchange of gradients."""
    paces, cpu = [], next(student.parameters()).device.type == "cpu"
    for stage in spec.stages:
        probe = spec.model_copy(update={"stages": [probed(stage, processes, cpu)]})
        clock = Clock(cpu)
        times = [
            clock.seconds()
            for progress in train(copy.deepcopy(student), teacher, plan, probe, source, **options)
            if progress.metrics
        ]
        steps = sorted(times[WARM_UP:])
        paces.append(steps[len(steps) // 2])
    return paces


def teacher_seconds(teacher: nn.Module, source: Source, narrow: bool) -> float:
    """Seconds of a forward of the teacher: the middle one of a few. `narrow`: under bfloat16
    autocast.
    """
    weight = next(teacher.parameters())
    batch, took = source.batch(0, FORWARD, 0).to(weight.device), []
    with torch.no_grad(), torch.autocast(weight.device.type, torch.bfloat16, enabled=narrow):
        clock = Clock(weight.device.type == "cpu")
        for _ in range(WARM_UP + MEASURED):
            batch.predict(teacher)
            if weight.device.type == "cuda":
                torch.cuda.synchronize(weight.device)
            took.append(clock.seconds())
    return sorted(took[WARM_UP:])[MEASURED // 2]


def as_at_first(paces: list[float], seconds: float, record: Path) -> list[float]:
    """The paces as they would be if the teacher's forward took the seconds that the file says;
    without the file it is written.

    Runs whose minutes are to be worth the same, whatever else a machine does meanwhile, share the
    file.
    """
    if not record.exists():
        write_atomic(record, json.dumps({"teacher_seconds": seconds}))
    return [
        pace * json.loads(record.read_text("utf-8"))["teacher_seconds"] / seconds for pace in paces
    ]


class Clock:
    """Seconds between looks at it. On a CPU those of this thread on the processor, where they are
    fewer: other work on the machine stretches the wall's seconds, but hardly these. The thread
    takes part in all that torch computes, backward included, and alone runs what is not parallel;
    all threads' time over their number would leave that out."""

    def __init__(self, cpu: bool) -> None:
        self.cpu, self.last = cpu, self.now()

    def now(self) -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()

    def seconds(self) -> float:
        before, self.last = self.last, self.now()
        wall, processor = (now - then for now, then in zip(self.last, before, strict=True))
        return min(wall, processor) if self.cpu else wall


def fitted(wanted: DistillSpec, paces: list[float], seconds: float) -> DistillSpec:
    """As many steps as fit the time, each stage keeping its share of it; a tenth is left for
    checkpoints and writing.
    """
    weights = [max(stage.steps, 1) * pace for stage, pace in zip(wanted.stages, paces, strict=True)]
    factor = 0.9 * seconds / sum(weights)
    counts = [max(1, int(max(stage.steps, 1) * factor)) for stage in wanted.stages]
    stages = [
        s.model_copy(update={"steps": n, "warmup": min(s.warmup, n // 5)})
        for s, n in zip(wanted.stages, counts, strict=True)
    ]
    return wanted.model_copy(update={"stages": stages})


def estimate(
    wanted: DistillSpec, paces: list[float], student: nn.Module, teacher: nn.Module
) -> dict[str, Any]:
    """What the run will take here, from the steps that were timed: seconds, and the peak bytes seen
    while they ran.

    On a CPU that is the process's resident memory, everything in it counted; on a GPU what torch's
    allocator held.
    """
    device = next(student.parameters()).device
    peak = (
        torch.cuda.max_memory_reserved(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    rows = [
        {
            "name": s.name,
            "steps": s.steps,
            "seconds": s.steps * pace,
            "samples_per_second": s.batch * s.accumulate / pace,
        }
        for s, pace in zip(wanted.stages, paces, strict=True)
    ]
    return {
        "steps": sum(s.steps for s in wanted.stages),
        "seconds": sum(row["seconds"] for row in rows),
        "seconds_per_step": paces,
        "parameters": sum(p.numel() for p in student.parameters()),
        "teacher_parameters": sum(p.numel() for p in teacher.parameters()),
        "bytes": peak,
        "device": str(device),
        "stages": rows,
    }


def for_devices(
    source: str, wanted: DistillSpec, devices: str, how: Sampling, store: Store
) -> dict[str, Any]:
    """The same for devices that are not here, from a plan or a student's card: no weights are
    loaded.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml"):
        plan = Plan.load(path)
        teacher = describe(plan.teacher, store)
    elif (path / "card.json").is_file():
        card = Card.load(path / "card.json")
        plan, teacher = Plan.parse(card.plan, f"plan of {path}"), describe(card.teacher, store)
    else:
        raise BadInput(
            f"{source} is no plan and no student",
            "plan.yaml, or a folder that `workbench build` wrote",
            "give one of them",
        )
    return on_paper(
        wanted, teacher, plan, Devices.parse(devices), tokens=tokens_of(teacher, how.size)
    )
