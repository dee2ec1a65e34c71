"""What a distillation takes on devices that are not here: memory and time of its stages, each found
by running a step of the very loop on models without memory (dry_run).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..plans import Tokens, parameters
from ..records import BadInput, DistillSpec, Plan, Progress, Stage, Teacher
from ..training.model_inputs import check_branches
from .dry_run import StepUse, Way, dry_run

GIB = 2**30
# share of the peak that such training reaches (ours; Megatron-LM reports 0.4 to 0.5 on A100)
USED = 0.4
RESERVE = 1.5 * GIB  # CUDA's context, and what the allocator cannot fill

# Dense bfloat16 peak, multiply-adds counted twice, and memory in bytes. Vendors' data sheets.
DEVICES: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "h20": (148e12, 96e9),
    "a6000": (155e12, 48e9),
    "4090": (165e12, 24e9),
    "3090": (71e12, 24e9),
    "l4": (121e12, 24e9),
    "t4": (65e12, 16e9),
}
BY_MEMORY = {80: "a100", 141: "h200", 96: "h20", 48: "a6000", 24: "4090", 16: "t4"}


@dataclass(frozen=True)
class Devices:
    """`8x80GB`, `1x24GB`, `4xH100`."""

    count: int
    name: str
    peak: float  # floating-point operations a second
    memory: float  # bytes

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Raises BadInput for text that is not a count and a device."""
        match = re.fullmatch(r"(?:(\d+)\s*[x*])?\s*(\w+?)(gb)?", text.strip().lower())
        name = device_name(match[2], bool(match[3])) if match else ""
        if not match or name not in DEVICES:
            known = ", ".join(DEVICES)
            expected = f"COUNTxDEVICE, as 8x80GB or 4xh100; known: {known}"
            raise BadInput(f"devices {text!r}", expected, "choose one")
        return cls(int(match[1] or 1), name, *DEVICES[name])


def device_name(word: str, gigabytes: bool) -> str:
    """`80` with GB is the device of that memory; anything else names itself (as `4090`)."""
    if word.isdigit() and (gigabytes or word not in DEVICES):
        return BY_MEMORY.get(int(word), "")
    return word


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes. bytes are per device.

    terms: what the bytes are. flops: of one step on one device. parts: of a device's share of a
    batch, one after the other.
    """

    stage: str
    steps: int
    batch: int
    accumulate: int
    branches: str
    parts: int
    shard: bool
    checkpointing: bool
    bytes: float
    fits: bool
    terms: dict[str, float]
    flops: float
    seconds_per_step: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a distillation takes. memory, bytes: of one device. share_of_peak: of a device's peak
    speed, assumed."""

    devices: str
    memory: float
    bytes: float
    fits: bool
    seconds: float
    device_hours: float
    share_of_peak: float
    parameters: int
    teacher_parameters: int
    stages: list[StageEstimate]

    @property
    def sentence(self) -> str:
        """In plain words, with what is measured and what assumed."""
        fits = "fits" if self.fits else "does not fit"
        return (
            f"dry run for {self.devices}: {fits}, {self.bytes / 1e9:.1f} of "
            f"{self.memory / 1e9:.0f} GB a device; about {self.seconds / 3600:.1f} hours. The memory "
            f"is that of a step of the real loop on tensors without data, and {RESERVE / 1e9:.1f} GB "
            f"for CUDA; the time is the operations of that step at {self.share_of_peak:.0%} of the "
            f"device's peak, which is an assumption."
        )


@dataclass(frozen=True)
class Trained:
    """What is trained. student_config: the transformer's, as `build` writes it."""

    teacher: Teacher
    plan: Plan
    student_config: Mapping[str, Any]
    tokens: Tokens = field(default_factory=Tokens)

    def run(self, stage: Stage, way: Way) -> StepUse:
        named = {"_class_name": self.teacher.class_name}
        return dry_run(
            stage,
            self.plan,
            named | self.teacher.config,
            named | dict(self.student_config),
            way,
            tokens=self.tokens,
            teacher_dtype=getattr(torch, self.teacher.dtype),
        )


def estimate_on(
    spec: DistillSpec, trained: Trained, devices: Devices, *, shard: bool, checkpointing: bool
) -> Iterator[Progress]:
    """Memory and time for devices that are not here; the last Progress has the Estimate.

    Each stage is run the plainest way that fits, with as much of a device's share of the batch at a
    time as fits: whole, checkpointed, split between the devices, both. shard, checkpointing: ways
    without them are not tried. Raises BadInput for a stage that the teacher's family cannot run.
    """
    for stage in spec.stages:
        check_branches(stage, trained.teacher.family)
    rows: list[StageEstimate] = []
    for stage in spec.stages:
        row = None
        for found in stage_ways(stage, trained, devices, shard, checkpointing):
            yield Progress(step=len(rows), total=len(spec.stages), message=in_words(found))
            if row is None or found.fits or not row.fits:
                row = found
        assert row is not None
        rows.append(row)
    seconds = sum(row.seconds for row in rows)
    result = Estimate(
        devices=f"{devices.count} x {devices.name}",
        memory=devices.memory,
        bytes=max(row.bytes for row in rows),
        fits=all(row.fits for row in rows),
        seconds=seconds,
        device_hours=seconds * devices.count / 3600,
        share_of_peak=USED,
        parameters=parameters(trained.plan, trained.teacher),
        teacher_parameters=trained.teacher.parameters,
        stages=rows,
    )
    yield Progress(step=len(rows), total=len(rows), message=result.sentence, result=result)


def stage_ways(
    stage: Stage, trained: Trained, devices: Devices, shard: bool, checkpointing: bool
) -> Iterator[StageEstimate]:
    """Dry runs until one fits; the last one is the answer.

    A way is first run with one sample at a time. Where that fits, the largest part that should fit
    as well, by what one sample's activations took, is run too.
    """
    share = max(1, stage.batch // devices.count)
    for way in ways(devices.count, shard, checkpointing):
        smallest = Way(way.processes, way.shard, way.checkpointing, parts=share)
        one = estimate_of(stage, smallest, trained.run(stage, smallest), devices)
        yield one
        if not one.fits:
            continue
        larger = [n for n in sample_counts(share) if n > 1]
        for samples in larger:
            expected = one.bytes + (samples - 1) * one.terms.get("activations", 0.0)
            if expected <= devices.memory:
                parts = share // samples
                wider = Way(way.processes, way.shard, way.checkpointing, parts)
                found = estimate_of(stage, wider, trained.run(stage, wider), devices)
                if found.fits:
                    yield found
                    return
        return


def sample_counts(share: int) -> list[int]:
    """How many of a device's samples can be run at a time, most first: all, a half, a quarter .."""
    counts = []
    while share >= 1:
        counts.append(share)
        if share % 2:
            break
        share //= 2
    return counts


def ways(count: int, shard: bool, checkpointing: bool) -> Iterator[Way]:
    """How a stage can be run, plainest first."""
    for split in (False, True):
        for checkpointed in (False, True):
            left_out = (shard and not split) or (checkpointing and not checkpointed)
            if not left_out and (count > 1 or not split):
                yield Way(count, split, checkpointed)


def estimate_of(stage: Stage, way: Way, use: StepUse, devices: Devices) -> StageEstimate:
    """What a dry run says about a whole stage."""
    terms = {name: float(size) for name, size in use.kinds.items()} | {"reserve": RESERVE}
    size = sum(terms.values())
    seconds = use.flops / (USED * devices.peak)
    return StageEstimate(
        stage=stage.name,
        steps=stage.steps,
        batch=stage.batch,
        accumulate=stage.accumulate,
        branches=stage.branches,
        parts=way.parts,
        shard=way.shard,
        checkpointing=way.checkpointing,
        bytes=size,
        fits=size <= devices.memory,
        terms=terms,
        flops=float(use.flops),
        seconds_per_step=seconds,
        seconds=seconds * stage.steps,
    )


def in_words(row: StageEstimate) -> str:
    """A dry run as a line of progress."""
    how = [f"{row.parts} parts"]
    how += ["split between the devices"] if row.shard else []
    how += ["checkpointed"] if row.checkpointing else []
    fits = "fits" if row.fits else "does not fit"
    return f"dry run of {row.stage}, {', '.join(how)}: {row.bytes / 1e9:.1f} GB, {fits}"
