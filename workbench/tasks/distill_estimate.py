"""How long and how large a distillation is: a few steps are timed, and steps fitted to a time.

For devices that are not here `distillation.estimate` runs a step on models without memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import students
from ..distillation.estimate import Devices, Holding, Trained, estimate_on
from ..distillation.loop import distill
from ..distillation.stage_groups import in_groups
from ..families import FAMILIES
from ..plans import tokens_of
from ..records import BadInput, Card, DistillSpec, Plan, Progress, Stage, Teacher
from ..specs import DistillVerbSpec
from ..surgery import peak_rss_mib
from ..surgery.student_config import config_changes, needs_code
from ..training.batch_source import Source
from ..workspace.store import Store
from .pace import MEASURED, WARM_UP, Clock, median
from .resolve import resolve

TRAINING_SHARE = 0.9  # of a time limit; the rest is for checkpoints and writing


@dataclass(frozen=True)
class StageTime:
    """What a stage takes here."""

    name: str
    steps: int
    seconds: float
    samples_per_second: float


@dataclass(frozen=True)
class EstimateHere:
    """What the run takes here, from the steps that were timed.

    bytes: the peak seen while they ran; on a CPU the process's resident memory, everything in it
    counted, on a GPU what torch's allocator had.
    """

    steps: int
    seconds: float
    seconds_per_step: list[float]  # by stage
    parameters: int
    teacher_parameters: int
    bytes: int
    device: str
    stages: list[StageTime]


def seconds_per_step(
    student: nn.Module,
    teacher: nn.Module,
    plan: Plan,
    spec: DistillSpec,
    source: Source,
    processes: int = 1,
    **options: Any,
) -> list[float]:
    """Seconds of an optimizer step of each stage, on copies of the student.

    Of several processes the largest share is timed, without the exchange of gradients. options: of
    the loop.
    """
    device = next(teacher.parameters()).device
    medians = []
    for stage in spec.stages:
        short = short_stage(stage, processes, device.type == "cpu")
        probe = spec.model_copy(update={"stages": [short]})
        clock = Clock(device)
        seconds = []
        for progress in distill(copy.deepcopy(student), teacher, plan, probe, source, **options):
            if progress.metrics:
                seconds.append(clock.seconds())
        medians.append(median(seconds))
    return medians


def short_stage(stage: Stage, processes: int, on_cpu: bool) -> Stage:
    """The stage as it is timed: a few steps.

    Of several processes each has a GPU and a share of the batch, or they share the processor, which
    then has the whole batch to do.
    """
    batch = stage.batch if on_cpu else -(-stage.batch // processes)
    changes = {"steps": WARM_UP + MEASURED, "warmup": 0, "batch": batch, "fit": "none"}
    return stage.model_copy(update=changes)


def fit_steps(stages: DistillSpec, per_step: list[float], limit: float) -> DistillSpec:
    """The stages with at most as many steps as fit the time limit in seconds, never more than they
    have.

    Each stage keeps its share of the time, and one that has steps keeps at least one.
    """
    needed = sum(
        stage.steps * seconds for stage, seconds in zip(stages.stages, per_step, strict=True)
    )
    available = TRAINING_SHARE * limit
    if needed <= available:
        return stages
    share = available / needed
    counts = [min(stage.steps, max(1, int(stage.steps * share))) for stage in stages.stages]
    return stages.with_stage_steps(counts)


def estimate_here(
    stages: DistillSpec, per_step: list[float], student: nn.Module, teacher: nn.Module
) -> EstimateHere:
    """What the run will take here."""
    rows = []
    for stage, seconds in zip(stages.stages, per_step, strict=True):
        samples = stage.batch * stage.accumulate
        rows.append(StageTime(stage.name, stage.steps, stage.steps * seconds, samples / seconds))
    device = next(teacher.parameters()).device
    return EstimateHere(
        steps=stages.steps,
        seconds=sum(row.seconds for row in rows),
        seconds_per_step=per_step,
        parameters=sum(p.numel() for p in student.parameters()),
        teacher_parameters=sum(p.numel() for p in teacher.parameters()),
        bytes=peak_memory(device),
        device=str(device),
        stages=rows,
    )


def peak_memory(device: torch.device) -> int:
    """Bytes, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return int(peak_rss_mib() * 2**20)


def estimate_for_devices(
    spec: DistillVerbSpec, stages: DistillSpec, store: Store
) -> Iterator[Progress]:
    """The same for devices that are not here, from a plan or a student's card, by dry runs; no
    weights are loaded. The last Progress has the Estimate.
    """
    path = Path(spec.student)
    if path.suffix in (".yaml", ".yml"):
        plan = Plan.load(path)
        name = plan.teacher
    elif (path / "card.json").is_file():
        card = Card.load(path / "card.json")
        plan = Plan.parse(card.plan, f"plan of {path}")
        name = card.teacher
    else:
        raise BadInput(
            f"{spec.student} is neither a plan nor a student",
            "plan.yaml, or a folder that `workbench build` wrote",
            "give one of them",
        )
    model = resolve(name, store, weights=False)
    teacher = model.description
    assert spec.devices is not None
    tokens = tokens_of(teacher, spec.size or model.sampling.size)
    trained = Trained(teacher, plan, student_config(teacher, plan), tokens)
    devices = Devices.parse(spec.devices)
    stages = in_groups(stages, {"parent": plan, "original": plan})
    return estimate_on(
        stages,
        trained,
        devices,
        shard=spec.shard,
        checkpointing=spec.checkpointing,
        holding=Holding(spec.placement, spec.teacher_weights),
    )


def student_config(teacher: Teacher, plan: Plan) -> dict[str, Any]:
    """The config of the student's transformer, as `build` writes it."""
    config = dict(teacher.config)
    changes = config_changes(config, plan)
    family = FAMILIES[plan.family]
    custom = needs_code(config | changes)
    cls = students.student_class(family.name) if custom else students.stock_class(family)
    return config | changes | {"_class_name": cls.__name__}
