"""Hybrid students train as others do, and serve as teachers of a second step (Amber-Image, arXiv
2602.17047).
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.distill_world import World, make_plan, source
from tests.distillation.test_stages import FED, FULL
from tests.students.conftest import HYBRID
from workbench import models, students, surgery
from workbench.distillation.loop import distill
from workbench.records import Card, DistillSpec, Span, Stage
from workbench.training.batch_source import LatentSource

assert source  # the fixture


@pytest.fixture
def world(source: LatentSource) -> World:
    teacher = tiny.tiny_transformer(depth=6)
    return World(teacher, HYBRID, surgery.student_transformer(teacher, HYBRID), source)


@pytest.mark.parametrize(
    "stage", [FED, FULL.model_copy(update={"train": "merged"})], ids=lambda stage: stage.name
)
def test_single_blocks_and_blocks_without_parts_learn(world: World, stage: Stage) -> None:
    rows = [p.metrics for p in world.run(stage) if p.metrics]
    key = "loss" if stage.name == "fed" else "output"
    first, last = (sum(row[key] for row in part) for part in (rows[:5], rows[-5:]))
    assert last < 0.9 * first


def test_a_distilled_student_loads_and_samples(
    world: World, student_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    student, teacher = (
        models.load_transformer(student_folder),
        models.load_transformer(teacher_folder),
    )
    spec = DistillSpec(stages=[FED.model_copy(update={"steps": 2})])
    list(
        distill(
            student, teacher, HYBRID, spec, world.source, out=tmp_path / "out", base=student_folder
        )
    )
    loaded = models.load_pipeline(tmp_path / "out")
    assert (
        type(loaded.transformer) is students.student_class("qwenimage")
        and Card.load(tmp_path / "out" / "card.json").stock is False
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            student.state_dict().values(), loaded.transformer.state_dict().values(), strict=True
        )
    )
    assert next(models.generate(loaded, ["a red circle"], seeds=[0], steps=2, guidance=1, size=32))


def test_a_hybrid_student_teaches_a_second_step(world: World) -> None:
    """The second plan is in blocks of the first student: the deeper ones become single, two of its
    singles merge.
    """
    spans = [
        Span(blocks=(0, 0), stream="single"),
        Span(blocks=(1, 2), init="mean", gain=2),
        Span(blocks=(3, 3)),
        Span(blocks=(4, 4)),
    ]
    again = make_plan(*spans)
    second = World(
        world.student, again, surgery.student_transformer(world.student, again), world.source
    )
    rows = [p.metrics for p in second.run(FED) if p.metrics]
    assert sum(r["loss"] for r in rows[-5:]) < 0.9 * sum(r["loss"] for r in rows[:5])
    assert list(second.student.config.single_stream_layers) == [0, 1]  # type: ignore[union-attr, arg-type]
