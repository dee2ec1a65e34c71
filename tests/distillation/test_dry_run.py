"""Dry runs: a step on models without memory takes what the same step takes for real."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests import tiny_families
from workbench import models, students, surgery
from workbench.distillation.dry_run import StepOnly, StepUse, Way, dry_run, split_stage
from workbench.distillation.estimate import (
    DEVICES,
    RESERVE,
    USED,
    Devices,
    Estimate,
    Trained,
    estimate_on,
)
from workbench.distillation.loop import checkpoint_blocks, prepare_models
from workbench.distillation.made_up_source import made_up_source
from workbench.distillation.processes import ALONE
from workbench.families import FAMILIES
from workbench.models.block_cache import forget
from workbench.plans import Tokens
from workbench.plans.spans import identity
from workbench.records import BadInput, DistillSpec, Loss, Plan, Span, Stage

TOKENS = Tokens(image=64, text=16)
CONFIG: dict[str, Any] = {
    "_class_name": "QwenImageTransformer2DModel",
    "num_layers": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 64,
    "axes_dims_rope": [16, 24, 24],
    "joint_attention_dim": 64,
}
STUDENT = CONFIG | {"num_layers": 2}
PATH = "transformer_blocks"
PLAN = Plan(
    teacher="x",
    family="qwenimage",
    stacks={PATH: [Span(blocks=(0, 2), init="mean"), Span(blocks=(3, 3))]},
)
FED = Stage(name="fed", steps=10, batch=4)
FULL = Stage(
    name="full",
    steps=10,
    batch=4,
    inputs="student",
    gradient="full",
    train="all",
    losses={"output": Loss()},
)


def use(stage: Stage, way: Way | None = None, **options: Any) -> StepUse:
    return dry_run(
        stage,
        PLAN,
        CONFIG,
        STUDENT,
        way or Way(),
        tokens=TOKENS,
        on_gpu=False,
        teacher_dtype=torch.float32,
        **options,
    )


def held_by_the_allocator(work: Callable[[], None]) -> int:
    """The most bytes that torch's allocator held above those before, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    now = most = 0
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def real_steps(stage: Stage, way: Way) -> None:
    teacher = students.stock_class(FAMILIES["qwenimage"]).from_config(CONFIG).eval()
    student = surgery.student_transformer(teacher, PLAN)
    forget(teacher)  # merged blocks, kept for the next preview
    samples = made_up_source("qwenimage", models.config_of(teacher), TOKENS)
    prepare_models(student, [teacher], ALONE)
    if way.checkpointing:
        checkpoint_blocks(student)
    loop = StepOnly(split_stage(stage, way), PLAN, teacher, student, samples)
    loop.begin()
    for _ in range(2):
        loop.advance()


@pytest.mark.parametrize(
    ("stage", "way"),
    [
        (FED, Way()),
        (FULL, Way()),
        (FULL, Way(checkpointing=True)),
        (FULL.model_copy(update={"ema": 0.9}), Way()),
    ],
    ids=["blockwise", "end to end", "checkpointed", "average"],
)
def test_a_dry_run_says_what_the_allocator_then_holds(stage: Stage, way: Way):
    said = use(stage, way).bytes
    took = held_by_the_allocator(lambda: real_steps(stage, way))
    assert said == pytest.approx(took, rel=0.1)


def test_weights_gradients_and_moments_are_those_of_the_parameters():
    teacher = students.stock_class(FAMILIES["qwenimage"]).from_config(CONFIG)
    size = sum(p.numel() for p in teacher.transformer_blocks[0].parameters())
    outside = sum(p.numel() for p in teacher.parameters()) - 4 * size
    full = use(FULL).kinds
    assert full["teacher"] == pytest.approx(4 * (4 * size + outside), rel=0.01)
    assert full["student"] == pytest.approx(4 * (2 * size + outside), rel=0.01)
    assert full["optimizer"] == pytest.approx(8 * (2 * size + outside), rel=0.01)
    fed = use(FED).kinds
    assert fed["optimizer"] == pytest.approx(8 * size, rel=0.01), "one block trains"
    assert fed["student"] == pytest.approx(4 * (size + outside), rel=0.01), "one is borrowed"


def test_split_between_two_processes_each_holds_half_of_the_blocks():
    whole = use(FULL).kinds
    half = use(FULL, Way(processes=2, shard=True)).kinds
    for kind in ("teacher", "student", "optimizer"):
        assert 0.5 * whole[kind] <= half[kind] < 0.62 * whole[kind], kind


def test_operations_are_torchs_count_of_one_step():
    one = use(FULL)
    assert use(FULL, Way(parts=4)).flops == pytest.approx(one.flops, rel=0.02)
    assert use(FULL, Way(parts=4)).bytes < one.bytes
    both = FULL.model_copy(update={"branches": "both"})
    assert use(both).flops == 2 * one.flops
    assert use(FULL, Way(checkpointing=True)).flops > 1.1 * one.flops


class OnPaper(Trained):
    """Needs 100 bytes of weights, half of them with two devices that split them, and 10 of
    activations a sample, 4 where they are checkpointed: no dry run is made."""

    def run(self, stage: Stage, way: Way) -> StepUse:
        samples = stage.batch // (way.processes * way.parts)
        weights = 100 // (way.processes if way.shard else 1)
        activations = samples * (4 if way.checkpointing else 10)
        flops = 4000 if way.checkpointing else 3000
        kinds = {"student": weights, "activations": activations}
        return StepUse(weights + activations, kinds, flops)


def answer(memory: float, count: int = 2, **flags: bool) -> Estimate:
    teacher = models.describe_module(tiny_families.family_model("qwenimage"))
    trained = OnPaper(teacher, identity(teacher), teacher.config, TOKENS)
    chosen = {"shard": False, "checkpointing": False} | flags
    devices = Devices(count, "x", 1e12, RESERVE + memory)
    stage = FULL.model_copy(update={"batch": 8})
    *_, last = estimate_on(DistillSpec(stages=[stage]), trained, devices, **chosen)
    assert isinstance(last.result, Estimate)
    return last.result


def test_less_memory_is_found_by_parts_checkpointing_and_splitting():
    expected = {
        140: (False, False, 1),
        139: (False, False, 2),
        119: (False, False, 4),
        109: (False, True, 2),
        103: (True, False, 1),
        66: (True, False, 4),
        59: (True, True, 2),
        54: (True, True, 4),
    }
    for memory, way in expected.items():
        row = answer(memory).stages[0]
        assert row.fits and (row.shard, row.checkpointing, row.parts) == way, memory
    assert not answer(53).fits
    forced = answer(1000, shard=True, checkpointing=True).stages[0]
    assert (forced.shard, forced.checkpointing, forced.parts) == (True, True, 1)


def test_an_estimate_says_in_words_what_is_run_and_what_is_assumed():
    said = answer(140)
    assert "dry run for 2 x x: fits" in said.sentence and "an assumption" in said.sentence
    assert said.seconds == pytest.approx(10 * 3000 / (USED * 1e12))
    with pytest.raises(BadInput) as error:
        Devices.parse("8 abacuses")
    assert error.value.expected.endswith("known: " + ", ".join(DEVICES))


def test_an_estimate_of_both_branches_of_a_model_with_one_is_refused():
    flux = models.describe_module(tiny_families.family_model("flux"))
    spec = DistillSpec(stages=[FULL.model_copy(update={"branches": "both"})])
    trained = Trained(flux, identity(flux), flux.config, TOKENS)
    with pytest.raises(BadInput) as refused:
        list(estimate_on(spec, trained, Devices.parse("1x24GB"), shard=False, checkpointing=False))
    assert "family flux" in refused.value.found


TRAINABLE = [name for name, family in FAMILIES.items() if family.inputs is not None]


@pytest.mark.parametrize("family", TRAINABLE)
def test_families_are_dry_run_on_inputs_of_their_own_form(family: str):
    teacher = tiny_families.family_model(family)
    described = models.describe_module(teacher)
    config = {"_class_name": described.class_name} | described.config
    plan = identity(described)
    side = Tokens(image=16, text=8)
    said = dry_run(FULL, plan, config, config, tokens=side, teacher_dtype=torch.float32)
    assert said.flops > 0 and said.kinds["teacher"] >= 4 * described.parameters
