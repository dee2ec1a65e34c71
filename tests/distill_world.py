"""A tiny teacher, plan, student and samples for tests of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests import tiny
from workbench import surgery
from workbench.distillation.loop import distill
from workbench.records import DistillSpec, Plan, Progress, Span, Stage
from workbench.training.batch_source import Bucket, LatentSource
from workbench.training.cache import Sample, Shard, write_shard

GRID = (2, 3)


@dataclass
class World:
    """A teacher of six blocks, a student of three (the middle one untouched), and samples."""

    teacher: torch.nn.Module
    plan: Plan
    student: torch.nn.Module
    source: LatentSource

    def run(
        self,
        *stages: Stage,
        student: torch.nn.Module | None = None,
        seed: int = 0,
        **options: object,
    ) -> list[Progress]:
        return list(self.run_each(*stages, student=student, seed=seed, **options))

    def run_each(
        self,
        *stages: Stage,
        student: torch.nn.Module | None = None,
        seed: int = 0,
        **options: object,
    ) -> Iterator[Progress]:
        """The same, step by step."""
        spec = DistillSpec(stages=list(stages), seed=seed)
        trained = student or self.student
        return distill(trained, self.teacher, self.plan, spec, self.source, **options)  # type: ignore[arg-type]


def make_plan(*spans: Span) -> Plan:
    return Plan(teacher="tiny", family="qwenimage", stacks={"transformer_blocks": list(spans)})


def samples(count: int = 24, seed: int = 0) -> list[Sample]:
    g = torch.Generator().manual_seed(seed)
    return [
        Sample(
            torch.randn(GRID[0] * GRID[1], 4 * tiny.Z_DIM, generator=g),
            {"encoder_hidden_states": torch.randn(3 + i % 4, tiny.TEXT_DIM, generator=g)},
        )
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> LatentSource:
    folder = tmp_path_factory.mktemp("cache")
    write_shard(folder / "a.safetensors", samples(16))
    write_shard(folder / "b.safetensors", samples(8, seed=1))
    empty = Sample(torch.zeros(1, 1), {"encoder_hidden_states": torch.ones(1, tiny.TEXT_DIM)})
    shards = [Shard(folder / "a.safetensors"), Shard(folder / "b.safetensors")]
    return LatentSource(
        [Bucket(shards, (1, *GRID))], family="qwenimage", empty=empty, levels=(1.0, 0.5, 0.25)
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # two stall on a busy machine


@pytest.fixture
def world(source: LatentSource) -> World:
    teacher = tiny.tiny_transformer(depth=6)
    plan = make_plan(
        Span(blocks=(0, 1), init="mean", gain=2),
        Span(blocks=(2, 2)),
        Span(blocks=(3, 5), init="first"),
    )
    return World(teacher, plan, surgery.student_transformer(teacher, plan), source)


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Callable[[int], Path]:
    return lambda depth: tiny.tiny_qwen_pipeline(tmp_path / f"pipe{depth}", depth=depth)


def copy(module: torch.nn.Module) -> torch.nn.Module:
    return deepcopy(module)
