"""What single fields of a stage do: timesteps, data, guidance, masks, and blocks that the teacher
lends.
"""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from tests.distill_world import World, copy, make_plan
from tests.refusals import refused
from workbench import surgery
from workbench.distillation.loop import distill
from workbench.distillation.trainable import trained_blocks
from workbench.models import blocks_of
from workbench.records import DistillSpec, Loss, Span, Stage, Timesteps
from workbench.training import builtin_losses
from workbench.training.batch import Drawing
from workbench.training.batch_source import LatentSource
from workbench.training.random_streams import draws, noise_level

from .test_stages import FED, FULL, PATH


def levels(how: Timesteps, count: int = 4000) -> np.ndarray:
    return np.sort([noise_level(draws(0, i), how, (1.0, 0.5, 0.25)) for i in range(count)])


@pytest.mark.parametrize(
    ("kind", "scheme"), [("logit-normal", "logit_normal"), ("uniform", "none"), ("mode", "mode")]
)
def test_timesteps_have_the_densities_of_diffusers(kind: str, scheme: str):
    ours = levels(Timesteps(kind=kind, mean=0.3, std=0.8))
    theirs = compute_density_for_timestep_sampling(
        scheme,
        4000,
        logit_mean=0.3,
        logit_std=0.8,
        mode_scale=1.29,
        generator=torch.Generator().manual_seed(0),
    )
    assert np.abs(ours - np.sort(theirs.numpy())).max() < 0.05


def test_a_trajectory_has_the_samplers_levels_and_a_shift_moves_to_noise():
    assert set(levels(Timesteps(kind="trajectory"), 200)) == {1.0, 0.5, 0.25}
    plain, shifted = (
        levels(Timesteps(kind="uniform"), 200),
        levels(Timesteps(kind="uniform", shift=3.0), 200),
    )
    assert np.allclose(shifted, 3 * plain / (1 + 2 * plain))


def test_a_kind_of_timesteps_can_stand_for_all_of_it():
    assert Stage.parse({"name": "x", "timesteps": "uniform"}, "a stage").timesteps == Timesteps(
        kind="uniform"
    )


def test_stages_may_have_data_of_their_own(world: World, source: LatentSource):
    class Counted:
        def __init__(self) -> None:
            self.asked = 0
            self.two_branches = False

        def batch(self, *args: object) -> object:
            self.asked += 1
            return source.batch(*args)  # type: ignore[arg-type]

    own = Counted()
    stages = [
        FED.model_copy(update={"steps": 2}),
        FED.model_copy(update={"steps": 3, "data": "own"}),
    ]
    world.run(*stages, sources={"own": own})
    assert own.asked == 3 + 2, "steps, and the spans measured before and after"
    with refused(found="stage 'fed': data nowhere"):
        world.run(FED.model_copy(update={"data": "nowhere"}))


def test_a_guided_target_is_what_two_forwards_make(world: World, source: LatentSource):
    batch = source.batch(3, 4, 0, Drawing(guidance=3.0))
    with torch.no_grad():
        cond = batch.predict(world.teacher)
        plain = batch.predict(world.teacher, batch.unconditional)
        guided = batch.guided(world.teacher, cond)
    made = plain + 3 * (cond - plain)
    assert torch.allclose(
        guided, made * cond.norm(dim=-1, keepdim=True) / made.norm(dim=-1, keepdim=True), atol=1e-6
    )
    assert torch.equal(source.batch(3, 4, 0).noisy, batch.noisy), "guidance changes no other number"
    ranged = source.batch(0, 8, 0, Drawing(guidance=(2.0, 5.0))).guidance
    assert (
        ranged is not None
        and len(set(ranged.tolist())) == 8
        and 2 <= float(ranged.min()) <= float(ranged.max()) <= 5
    )


def test_a_student_learns_the_guided_answer(world: World):
    rows = [
        p.metrics
        for p in world.run(FULL.model_copy(update={"guidance": 3.0, "losses": {"output": Loss()}}))
        if p.metrics
    ]
    assert sum(r["output"] for r in rows[-5:]) < 0.85 * sum(r["output"] for r in rows[:5])


def test_massive_activations_are_left_out_of_the_feature_loss():
    target = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    value, spiked = target + 0.1, target.clone()
    spiked[0, 1, 7] = 500.0
    plain, masked = Loss(form="plain"), Loss(form="plain", mask_sigma=5.0)
    assert torch.equal(
        builtin_losses.distance(value, target, plain),
        builtin_losses.distance(value, target, masked),
    )
    assert float(builtin_losses.distance(value, spiked, plain)) > 300
    assert float(builtin_losses.distance(value, spiked, masked)) == pytest.approx(0.01, rel=1e-4)


def test_shares_of_a_loss_add_up_to_it():
    g = torch.Generator().manual_seed(0)
    value, target = torch.randn(6, 4, 8, generator=g), torch.randn(6, 4, 8, generator=g)
    mask = torch.rand(6, 4, generator=g) > 0.3
    for loss in (Loss(), Loss(form="plain"), Loss(mask_sigma=1.5)):
        kept: list[torch.Tensor] = []
        for part in (slice(0, 2), slice(2, 6)):
            builtin_losses.distance(
                value[part],
                target[part],
                loss,
                mask[part],
                lambda sums, kept=kept: kept.append(sums) or sums,
            )  # type: ignore
        total = kept[0] + kept[1]
        shares = [
            builtin_losses.distance(
                value[p], target[p], loss, mask[p], lambda _, total=total: total
            )
            for p in (slice(0, 2), slice(2, 6))
        ]
        assert float(sum(shares)) == pytest.approx(
            float(builtin_losses.distance(value, target, loss, mask)), rel=1e-5
        )


def test_single_trains_the_blocks_that_become_single_stream(world: World):
    plan = make_plan(Span(blocks=(0, 2)), Span(blocks=(3, 3)), Span(blocks=(4, 5), stream="single"))
    assert trained_blocks(world.student, plan, FED.model_copy(update={"train": "single"})) == [
        (PATH, 2)
    ]
    assert trained_blocks(world.student, plan, FED) == [(PATH, 0), (PATH, 2)]


def test_one_spans_activations_live_at_a_time(world: World):
    """When a student's block begins, nothing is saved for another's backward; and each step runs
    each block of the teacher once.
    """

    class Box:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    world.plan = make_plan(*[Span(blocks=(b, b + 1)) for b in (0, 2, 4)])
    student = surgery.student_transformer(world.teacher, world.plan)
    saved: weakref.WeakSet[Box] = weakref.WeakSet()
    counts: list[int] = []
    ran: list[int] = []

    def pack(tensor: torch.Tensor) -> Box:
        box = Box(tensor)
        saved.add(box)
        return box

    for block in blocks_of(student)[PATH]:
        block.register_forward_pre_hook(lambda *_: counts.append(len(saved)))
        block.register_forward_hook(lambda *_: counts.append(len(saved)))
    for index, block in enumerate(blocks_of(world.teacher)[PATH]):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    stage = FED.model_copy(update={"steps": 2, "train": {PATH: [0, 1]}})
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
        world.run(stage, student=student)
    assert len(counts) == 2 * 2 * 4, (
        "before and after each of two spans, in two steps and two probes"
    )
    assert not any(counts[::2]) and counts[1] == 0 and min(counts[5:12:2]) > 10
    assert ran == [0, 1, 2, 3] * 4


def test_untouched_blocks_are_lent_by_the_teacher_while_they_are_frozen(world: World):
    before = {name: p.clone() for name, p in world.student.named_parameters()}
    teacher = {name: p.clone() for name, p in world.teacher.named_parameters()}
    shared = []

    def same() -> bool:
        pairs = zip(
            blocks_of(world.student)[PATH][1].parameters(),
            blocks_of(world.teacher)[PATH][2].parameters(),
            strict=True,
        )
        return all(a.data_ptr() == b.data_ptr() for a, b in pairs)

    stages = [FED.model_copy(update={"steps": 1}), FULL.model_copy(update={"steps": 1})]
    for progress in distill(
        world.student, world.teacher, world.plan, DistillSpec(stages=stages), world.source
    ):
        if progress.metrics:
            shared.append(same())
    assert shared == [True, False]
    assert all(torch.equal(p, teacher[name]) for name, p in world.teacher.named_parameters())
    untouched = [name for name in before if name.startswith(f"{PATH}.1.img_mlp")]
    assert not any(
        torch.equal(dict(world.student.named_parameters())[name], before[name])
        for name in untouched
    ), "the second stage"


def test_what_training_repairs_is_measured_per_span(world: World):
    result = world.run(FED, FULL.model_copy(update={"losses": {"task": Loss()}, "steps": 1}))[
        -1
    ].result
    rows = result["recoverability"]
    assert [(r["stage"], r["stack"], r["span"], r["first"], r["last"]) for r in rows] == [
        ("fed", PATH, 0, 0, 1),
        ("fed", PATH, 2, 3, 5),
    ]
    assert all(0 < row["after"] < 0.8 * row["before"] for row in rows)


def test_recoverability_survives_a_resume(world: World, tmp_path: object):
    whole = world.run(FED, student=copy(world.student))[-1].result["recoverability"]
    polls = iter(range(100))
    halves = {"checkpoint_folder": tmp_path / "c"}  # type: ignore[operator]
    world.run(FED, student=copy(world.student), stop=lambda: next(polls) >= 7, **halves)
    assert (
        world.run(FED, student=copy(world.student), resume=True, **halves)[-1].result[
            "recoverability"
        ]
        == whole
    )
