"""What a distillation takes on devices that are not here: memory and time of its stages, each found
by running a step of the very loop on models without memory (dry_run).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from ..plans import Tokens, parameters
from ..records import BadInput, DistillSpec, Plan, Progress, Stage, Teacher
from ..specs.placements import AUTO, PLACEMENTS
from ..specs.teacher_weights import AS_LOADED
from ..training.model_inputs import check_branches
from ..training.optim import check_states
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
    batch, one after the other. placement, teacher_weights: how the teacher is held. host: bytes of
    the student's and the optimizer's that wait in the host's memory.
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
    placement: str = "whole"
    teacher_weights: str = AS_LOADED
    host: float = 0.0


@dataclass(frozen=True)
class Holding:
    """How the teacher may be held. placement: of specs.placements, or auto. weights: of
    specs.teacher_weights.
    """

    placement: str = AUTO
    weights: str = AS_LOADED

    def ways(self, count: int) -> list[bool]:
        """Whether it is streamed, in the order that is tried. Packed weights are not; neither are
        those of several devices, whose way is to split it.
        """
        if self.weights != AS_LOADED or (self.placement == AUTO and count > 1):
            return [False]
        if self.placement == AUTO:
            return [False, True]
        return [PLACEMENTS[self.placement].streamed]


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
    spec: DistillSpec,
    trained: Trained,
    devices: Devices,
    *,
    shard: bool,
    checkpointing: bool,
    holding: Holding = Holding(),
) -> Iterator[Progress]:
    """Memory and time for devices that are not here; the last Progress has the Estimate.

    Each stage is run the plainest way that fits, with as much of a device's share of the batch at a
    time as fits: whole, checkpointed, with a streamed teacher, split between the devices. shard,
    checkpointing: ways without them are not tried. Of many groups of blocks that train one after
    the other the first and the last are run. Raises BadInput for a stage that the teacher's family
    cannot run.
    """
    for stage in spec.stages:
        check_branches(stage, trained.teacher.family)
        check_states(stage.name, stage.optimizer_states, shard=shard)
    every_way = partial(
        stage_ways,
        trained=trained,
        devices=devices,
        ways=ways(devices.count, shard, checkpointing, holding),
    )
    rows: list[StageEstimate] = []
    for groups in groups_of_stages(spec.stages):
        found: list[StageEstimate] = []
        for stage in groups if len(groups) < 3 else (groups[0], groups[-1]):
            tried: list[StageEstimate] = []
            for row in every_way(stage):
                yield Progress(step=len(rows), total=len(spec.stages), message=in_words(row))
                tried.append(row)
            found.append(best_of(tried))
        rows += found if len(groups) < 3 else between(found[0], found[1], groups)
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


def best_of(tried: Sequence[StageEstimate]) -> StageEstimate:
    """The last that fits, else the last."""
    fitting = [row for row in tried if row.fits]
    return (fitting or list(tried))[-1]


def groups_of_stages(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages that differ in nothing but their name and which of the blocks train: neighbours."""
    groups: list[list[Stage]] = []
    before = ""
    for stage in stages:
        blocks = stage.train if isinstance(stage.train, dict) else {}
        counts = {path: len(numbers) for path, numbers in blocks.items()}
        key = f"{stage.model_dump_json(exclude={'name', 'train'})} {counts}"
        if groups and counts and key == before:
            groups[-1].append(stage)
        else:
            groups.append([stage])
        before = key
    return groups


def between(
    first: StageEstimate, last: StageEstimate, groups: Sequence[Stage]
) -> list[StageEstimate]:
    """Rows of all groups from those of the first and the last: the teacher runs up to the group, so
    time grows evenly; memory is taken as the larger.
    """
    larger = max(first, last, key=lambda row: row.bytes)
    rows = []
    for number, stage in enumerate(groups):
        part = number / (len(groups) - 1)
        flops = first.flops + part * (last.flops - first.flops)
        seconds = flops * last.seconds_per_step / last.flops
        changes: dict[str, Any] = {"stage": stage.name, "flops": flops, "seconds_per_step": seconds}
        rows.append(replace(larger, **changes, seconds=seconds * stage.steps))
    return rows


def stage_ways(
    stage: Stage, trained: Trained, devices: Devices, ways: Sequence[Way]
) -> Iterator[StageEstimate]:
    """Dry runs until one fits; the last one is the answer.

    A way is first run with one sample at a time. Where that fits, the largest part that should fit
    as well, by what one sample's activations took, is run too.
    """
    share = max(1, stage.batch // devices.count)
    for way in ways:
        if way.shard and stage.optimizer_states != "device":
            continue
        smallest = replace(way, parts=share)
        one = estimate_of(stage, smallest, trained.run(stage, smallest), devices)
        yield one
        if not one.fits:
            continue
        larger = [n for n in sample_counts(share) if n > 1]
        for samples in larger:
            expected = one.bytes + (samples - 1) * one.terms.get("activations", 0.0)
            if expected <= devices.memory:
                parts = share // samples
                wider = replace(way, parts=parts)
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


def ways(count: int, shard: bool, checkpointing: bool, holding: Holding) -> list[Way]:
    """How a stage can be run, plainest first."""
    held: list[Way] = []
    if count == 1 or not shard:
        for streamed in holding.ways(count):
            held.append(Way(count, streamed=streamed, weights=holding.weights))
    if count > 1:
        held.append(Way(count, shard=True))
    found = []
    for way in held:
        if not checkpointing:
            found.append(way)
        found.append(replace(way, checkpointing=True))
    return found


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
        placement="streamed" if way.streamed else "whole",
        teacher_weights=way.weights,
        host=float(use.host),
    )


def in_words(row: StageEstimate) -> str:
    """A dry run as a line of progress."""
    how = [f"{row.parts} parts"]
    how += ["split between the devices"] if row.shard else []
    how += ["checkpointed"] if row.checkpointing else []
    how += ["teacher streamed"] if row.placement == "streamed" else []
    how += [f"teacher in {row.teacher_weights}"] if row.teacher_weights != AS_LOADED else []
    fits = "fits" if row.fits else "does not fit"
    return f"dry run of {row.stage}, {', '.join(how)}: {row.bytes / 1e9:.1f} GB, {fits}"
