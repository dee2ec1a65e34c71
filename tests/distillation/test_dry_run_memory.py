"""Dry runs of what is held elsewhere: packed and streamed teachers, groups of blocks, states."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from workbench import students
from workbench.distillation.dry_run import StepUse, Way, dry_run
from workbench.distillation.estimate import RESERVE, Devices, Holding, Trained, estimate_on
from workbench.families import FAMILIES
from workbench.models import describe_module
from workbench.models.packed_weights import packable, packed_bytes
from workbench.records import DistillSpec, Plan, Span, Stage
from workbench.specs.placements import RESIDENT_BLOCKS

from .test_dry_run import CONFIG, FED, FULL, PATH, TOKENS

DEEP = CONFIG | {"num_layers": 6}
STUDENT = CONFIG | {"num_layers": 3}
PLAN = Plan(
    teacher="x",
    family="qwenimage",
    stacks={PATH: [Span(blocks=(i, i + 1), init="mean") for i in (0, 2, 4)]},
)
NARROW = {"precision": "bfloat16"}
ONE = FED.model_copy(update={"train": {PATH: [2]}, **NARROW})


def use(stage: Stage, way: Way | None = None) -> StepUse:
    return dry_run(stage, PLAN, DEEP, STUDENT, way or Way(), tokens=TOKENS)


@pytest.fixture(scope="module")
def teacher() -> torch.nn.Module:
    return students.stock_class(FAMILIES["qwenimage"]).from_config(DEEP)


@pytest.fixture(scope="module")
def sizes(teacher: torch.nn.Module) -> tuple[int, int]:
    """Numbers of a block, and outside the blocks."""
    block = sum(p.numel() for p in teacher.transformer_blocks[0].parameters())
    return block, sum(p.numel() for p in teacher.parameters()) - 6 * block


def test_blocks_that_do_not_train_are_counted_on_the_host(sizes: tuple[int, int]):
    block, outside = sizes
    said = use(ONE)
    assert said.kinds["student"] == pytest.approx(4 * (block + outside), rel=0.01)
    assert said.host == pytest.approx(2 * 2 * block, rel=0.01)
    assert said.kinds["optimizer"] == pytest.approx(8 * block, rel=0.01)


def test_frozen_blocks_that_run_are_counted_in_bfloat16(sizes: tuple[int, int]):
    block, outside = sizes
    end_to_end = FULL.model_copy(update={"train": {PATH: [2]}, **NARROW})
    said = use(end_to_end).kinds["student"]
    assert said == pytest.approx(4 * (block + outside) + 2 * 2 * block, rel=0.02)


def test_a_streamed_teacher_is_three_blocks_at_most(sizes: tuple[int, int]):
    block, outside = sizes
    held = use(ONE, Way(streamed=True)).kinds["teacher"]
    assert 1.99 * (block + outside) < held <= 2.01 * (RESIDENT_BLOCKS * block + outside)


@pytest.mark.parametrize(("weights", "bits"), [("int8", 8), ("nf4", 4.5)])
def test_a_packed_teacher_is_its_codes_and_a_few_blocks(
    teacher: torch.nn.Module, sizes: tuple[int, int], weights: str, bits: float
):
    block, outside = sizes
    linears = [
        teacher.transformer_blocks[0].get_parameter(n)
        for n in packable(teacher.transformer_blocks[0])
    ]
    codes = sum(packed_bytes(*p.shape, bits) for p in linears)
    rest = 2 * (block - sum(p.numel() for p in linears))
    least = 6 * (codes + rest) + 2 * outside
    held = use(ONE, Way(weights=weights)).kinds["teacher"]
    assert 0.99 * least < held < 1.01 * (least + 2 * RESIDENT_BLOCKS * block)


def test_states_on_the_host_are_one_blocks_and_of_8_bits_a_quarter(sizes: tuple[int, int]):
    block, _ = sizes
    every = FED.model_copy(update=NARROW)
    whole = use(every)
    assert whole.kinds["optimizer"] == pytest.approx(8 * 3 * block, rel=0.01)
    offloaded = use(every.model_copy(update={"optimizer_states": "host"}))
    assert offloaded.kinds.get("optimizer", 0) <= 8.1 * block
    assert offloaded.bytes < whole.bytes
    assert offloaded.host >= 0.99 * 8 * 3 * block - 8.1 * block
    narrow = use(every.model_copy(update={"optimizer_states": "8bit"}))
    assert narrow.kinds["optimizer"] == pytest.approx(whole.kinds["optimizer"] / 3.94, rel=0.01)


@dataclass(frozen=True)
class Noted(Trained):
    """On paper: 100 bytes with a teacher that is whole, 10 with a streamed one; operations grow
    with the block that trains."""

    runs: list[str] = field(default_factory=list)

    def run(self, stage: Stage, way: Way) -> StepUse:
        self.runs.append(stage.name)
        assert isinstance(stage.train, dict)
        return StepUse(10 if way.streamed else 100, {"student": 100}, 1 + stage.train[PATH][0], 7)


def test_of_many_groups_the_first_and_the_last_are_run(teacher: torch.nn.Module):
    stages = [
        FED.model_copy(update={"name": f"g{i}", "train": {PATH: [i]}, "seed": 1}) for i in range(5)
    ]
    trained = Noted(describe_module(teacher), PLAN, STUDENT, TOKENS)
    devices = Devices(1, "x", 1e12, RESERVE + 1000)
    *_, last = estimate_on(
        DistillSpec(stages=stages), trained, devices, shard=False, checkpointing=False
    )
    assert set(trained.runs) == {"g0", "g4"}
    rows = last.result.stages
    assert [row.stage for row in rows] == [stage.name for stage in stages]
    assert [round(row.flops) for row in rows] == [1, 2, 3, 4, 5]


def test_a_teacher_that_does_not_fit_is_streamed_unless_a_way_is_asked_for():
    assert Holding().ways(1) == [False, True]
    assert Holding().ways(8) == [False]
    assert Holding("streamed").ways(8) == [True]
    assert Holding(weights="nf4").ways(1) == [False]
