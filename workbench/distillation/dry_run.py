"""A stage's own steps on models without memory: what a step would take, found out by running it.

No formula and no weights: teacher and student of full size are fake tensors
(models.fake_models), and the loop that trains the real ones runs on them, in one process or as one
of several that split the blocks (FSDP2 over torch's fake process group).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import _disable_current_modes

from ..models import config_of
from ..models.fake_models import CountedHost, FakeRun
from ..models.host_memory import Host
from ..models.memory_use import HOST, MemoryUse
from ..plans import Tokens
from ..records import DistillSpec, Plan, Stage
from ..specs.teacher_weights import AS_LOADED
from ..training.batch import PLAIN, Batch, Drawing
from ..training.batch_source import LatentSource, Source
from .checkpoints import Checkpoints
from .loop import checkpoint_blocks, prepare_models
from .made_up_source import made_up_source
from .processes import ALONE, Processes
from .run import Run
from .trainable import student_places

STEPS = 100  # the stage's; one of them is run


@dataclass(frozen=True)
class Way:
    """How a stage is run on its devices.

    processes: devices, one each. parts: of a device's batch, one after the other. streamed,
    weights: how the teacher is held (specs.placements, specs.teacher_weights).
    """

    processes: int = 1
    shard: bool = False
    checkpointing: bool = False
    parts: int = 1
    streamed: bool = False
    weights: str = AS_LOADED


ALONE_AND_WHOLE = Way()


@dataclass(frozen=True)
class StepUse:
    """What one device needs. bytes: the peak of live tensors; kinds: of these bytes. flops: of one
    optimizer step. host: bytes of what waits on the host meanwhile; a streamed teacher's blocks,
    which may be on the disk, are not among them."""

    bytes: int
    kinds: dict[str, int]
    flops: int
    host: int = 0


def dry_run(
    stage: Stage,
    plan: Plan,
    teacher_config: Mapping[str, Any],
    student_config: Mapping[str, Any],
    way: Way = ALONE_AND_WHOLE,
    *,
    tokens: Tokens | None = None,
    on_gpu: bool = True,
    teacher_dtype: torch.dtype = torch.bfloat16,
) -> StepUse:
    """Run an optimizer step of a stage without memory.

    plan: the student's, over the teacher. on_gpu: as a GPU would run it (FakeRun).
    """
    run = FakeRun(on_gpu=on_gpu)
    with fake_processes(way) as processes:
        if way.streamed or way.weights != AS_LOADED:
            teacher = run.streamed_model(teacher_config, teacher_dtype, "teacher", way.weights)
        else:
            teacher = run.model(teacher_config, teacher_dtype, "teacher")
        # a student that is split is brought to float32 first, by the loop
        student_dtype = torch.float32 if way.shard else teacher_dtype
        student = run.model(student_config, student_dtype, "student")
        config = config_of(teacher)
        samples = FakeSource(made_up_source(plan.family, config, tokens or Tokens()), run)
        with run.running() as memory:
            prepare_models(student, [teacher], processes)
            memory.name_model(teacher, "teacher")
            memory.name_model(student, "student")
            host = None
            if on_gpu and not way.shard:
                host = CountedHost(memory)
                memory.name_model(student, HOST)  # it is loaded there
            if way.checkpointing:
                checkpoint_blocks(student)
            loop = StepOnly(
                split_stage(stage, way), plan, teacher, student, samples, processes, host
            )
            loop.on_gpu = on_gpu
            parts = stage.accumulate * way.parts * stage.passes
            used = step_use(loop, memory, holds_gradients=parts > 1)
    used = replace(used, flops=used.flops * parts)
    return in_8_bits(used) if stage.optimizer_states == "8bit" else used


def split_stage(stage: Stage, way: Way) -> Stage:
    """The stage with one part of a device's share of a batch as its whole batch."""
    share = max(1, -(-stage.batch // (way.processes * way.parts)))
    changes = {"batch": share * way.processes, "accumulate": 1, "branches": "conditional"}
    changes |= {"steps": STEPS, "warmup": 0, "fit": "none"}
    if stage.optimizer_states == "8bit":  # its kernels take no fake tensors: see `in_8_bits`
        changes |= {"optimizer_states": "device"}
    return stage.model_copy(update=changes)


class StepOnly(Run):
    """A run of one stage that writes nothing and measures nothing beside its steps: neither takes
    more memory than a step."""

    def __init__(
        self,
        stage: Stage,
        plan: Plan,
        teacher: nn.Module,
        student: nn.Module,
        samples: Source,
        processes: Processes = ALONE,
        host: Host | None = None,
    ) -> None:
        super().__init__(
            student,
            DistillSpec(stages=[stage]),
            samples,
            {"original": (teacher, plan), "parent": (teacher, plan)},
            dict.fromkeys(student_places(plan), 1.0) if stage.scale != "none" else None,
            Checkpoints(None, 1, processes),
            "",
            {stage.data: samples} if stage.data else None,
            processes,
            host,
        )

    on_gpu = False  # compute in the stage's precision, whatever this machine's CPU is fit for

    def begin(self) -> None:
        super().begin()
        self.gaps = None

    @property
    def _narrow(self) -> bool:
        return self.stage.precision == "bfloat16" if self.on_gpu else super()._narrow

    def _precision(self) -> AbstractContextManager[Any]:
        return self._autocast(True) if self.on_gpu else super()._precision()

    def student_context(self) -> AbstractContextManager[Any]:
        if self.on_gpu:
            return self._autocast(self.stage.gradient == "full")
        return super().student_context()

    def _autocast(self, keep_casts: bool) -> AbstractContextManager[Any]:
        narrow = self.stage.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=narrow, cache_enabled=keep_casts)

    def _probe(self) -> list[float]:
        return [math.nan] * len(self.work.probes)


def step_use(loop: StepOnly, memory: MemoryUse, *, holds_gradients: bool) -> StepUse:
    """One step of a run that is under way: the optimizers have their states, made by a step along
    made-up gradients.

    holds_gradients: those of parts that came before are there. To be called inside `memory`.
    """
    loop.begin()
    on_device = [p for p in loop.student.parameters() if memory.kind_of(p) != HOST]
    memory.name([p for p in on_device if memory.kind_of(p) != "teacher"], "student")
    memory.name_gradients(loop.student)
    for optimizer in loop.optimizers:
        memory.name_moments(optimizer)
    if loop.work.average:
        memory.name(loop.work.average.values.values(), "average")
    for p in loop.work.params.values():
        p.grad = torch.zeros_like(p)
        memory.name([p.grad], "gradients")
    loop.work.optimizers.step()
    if not holds_gradients:
        loop.student.zero_grad(set_to_none=True)
    memory.take_peak_anew()
    memory.flops = 0
    loop.advance()
    host = memory.at_peak.pop(HOST, 0)
    kinds = {kind: size for kind, size in memory.at_peak.items() if size}
    return StepUse(memory.peak, kinds, memory.flops, host)


def in_8_bits(use: StepUse) -> StepUse:
    """The same step with optimizer states of 8 bits: a byte a number, and a float32 scale per 256,
    for 4 bytes. Tensors under 4096 numbers, which stay whole, are too small to count."""
    states = use.kinds.get("optimizer", 0)
    narrow = round(states * (1 + 4 / 256) / 4)
    kinds = use.kinds | {"optimizer": narrow} if states else use.kinds
    return replace(use, bytes=use.bytes - states + narrow, kinds=kinds)


@dataclass(frozen=True)
class FakeSource:
    """A source's batches as fake tensors."""

    source: LatentSource
    run: FakeRun

    @property
    def two_branches(self) -> bool:
        return self.source.two_branches

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch:
        with _disable_current_modes():
            made = self.source.batch(step, size, seed, how)
        fields = {name: self.run.faked(value) for name, value in vars(made).items()}
        return replace(made, **fields)


@contextmanager
def fake_processes(way: Way) -> Iterator[Processes]:
    """The first of several processes; the others are made up, and their messages go nowhere."""
    if way.processes == 1:
        yield ALONE
        return
    store = FakeStore()
    dist.init_process_group("fake", rank=0, world_size=way.processes, store=store)
    try:
        mesh = init_device_mesh("cpu", (way.processes,)) if way.shard else None
        yield Processes(0, way.processes, way.shard, mesh)
    finally:
        dist.destroy_process_group()
