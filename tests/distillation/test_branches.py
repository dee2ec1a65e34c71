"""Both branches of classifier-free guidance, and the gap between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distill_world import GRID, World, copy, samples
from workbench.distillation import run
from workbench.distillation.gap_curve import EVERY, SAMPLES
from workbench.distillation.run import PROBE_SEED
from workbench.models import blocks
from workbench.records import BadInput, Loss, Stage
from workbench.training.batch import Drawing
from workbench.training.batch_source import Bucket, LatentSource
from workbench.training.cache import Shard, write_shard
from workbench.training.guidance_gap import GuidanceGap, gap_of, gap_sums
from workbench.training.model_inputs import check_branches

from .test_stages import FED, FULL, PATH

BOTH = FULL.model_copy(update={"branches": "both", "steps": 2, "optimizer": "adamw"})


def without_empty(folder: Path, family: str = "qwenimage", **options: object) -> LatentSource:
    write_shard(folder / "a.safetensors", samples(8))
    bucket = Bucket([Shard(folder / "a.safetensors")], (1, *GRID))
    return LatentSource([bucket], family=family, **options)  # type: ignore[arg-type]


def gradients(world: World, stage: Stage) -> dict[str, torch.Tensor]:
    """Of the first step, as the optimizer gets them."""
    seen: dict[str, torch.Tensor] = {}
    student = copy(world.student)
    for name, p in student.named_parameters():
        p.register_post_accumulate_grad_hook(
            lambda p, name=name: seen.__setitem__(name, p.grad.clone())
        )
    world.run(stage.model_copy(update={"steps": 1, "clip": None}), student=student)
    return seen


# --- what is trained on ---------------------------------------------------------------------------


def test_a_batch_of_both_branches_keeps_its_captions_and_its_noise(world: World):
    plain = world.source.batch(0, 24, 0, Drawing())
    both = world.source.batch(0, 24, 0, Drawing(both_branches=True))
    text = "encoder_hidden_states"
    assert torch.equal(plain.noisy, both.noisy) and torch.equal(plain.sigma, both.sigma)
    assert plain.unconditional is None and both.unconditional is not None
    plain_empty = (plain.condition[text][:, 0] == 1).all(1)  # the world's empty prompt is ones
    both_empty = (both.condition[text][:, 0] == 1).all(1)
    assert plain_empty.any() and not both_empty.any()
    assert (both.without_prompts.condition[text] == 1).all()


@pytest.mark.parametrize("losses", [{"output": Loss()}, {"task": Loss()}, FULL.losses], ids=str)
def test_the_gradient_of_both_branches_is_the_mean_of_theirs(world: World, losses: dict):
    """Against one loss made of both predictions by hand."""
    stage = BOTH.model_copy(update={"losses": losses, "batch": 4})
    seen = gradients(world, stage)
    student = copy(world.student).requires_grad_(True)
    batch = world.source.batch(0, 4, 0, Drawing(stage.timesteps, both_branches=True))
    total = torch.zeros(())
    for branch in (batch, batch.without_prompts):
        with blocks.capture(world.teacher) as teachers, torch.no_grad():
            goal = branch.predict(world.teacher)
        with blocks.capture(student, detach=False) as own:
            value = branch.predict(student)
        if "output" in losses:
            total = total + (value - goal).square().mean() / goal.square().mean()
        if "task" in losses:
            truth = branch.velocity
            total = total + (value - truth).square().mean() / truth.square().mean()
        if "feature" in losses:
            total = total + 0.1 * feature_by_hand(own, teachers, branch.text_mask)
    (total / 2).backward()
    for name, p in student.named_parameters():
        if p.grad is not None and name in seen:
            torch.testing.assert_close(seen[name], p.grad, rtol=1e-3, atol=1e-6)
    assert len(seen) > 20


def feature_by_hand(own, teachers, mask) -> torch.Tensor:
    """The mean over spans and streams of normalised errors; the last text output is not read."""
    spans = []
    for index, goal in ((0, 1), (1, 2), (2, 5)):
        streams = []
        for name in ("hidden_states", "encoder_hidden_states"):
            if goal == 5 and name == "encoder_hidden_states":
                continue
            a = own.outputs[PATH, index][name]
            b = teachers.outputs[PATH, goal][name]
            if name == "encoder_hidden_states" and mask is not None:
                a, b = a[mask], b[mask]
            streams.append((a - b).square().mean() / b.square().mean())
        spans.append(torch.stack(streams).mean())
    return torch.stack(spans).mean()


def test_a_block_wise_stage_of_both_branches_trains_on_the_states_of_both(world: World):
    one, two = ({"branches": branches, "steps": 1} for branches in ("conditional", "both"))
    rows = [world.run(FED.model_copy(update=u), student=copy(world.student)) for u in (one, two)]
    batch = world.source.batch(0, 8, 0, Drawing(FED.timesteps, both_branches=True))
    assert rows[0][0].metrics["loss"] != rows[1][0].metrics["loss"]
    assert batch.unconditional is not None


def test_a_run_of_both_branches_resumes_bit_for_bit(world: World, tmp_path: Path):
    stage = BOTH.model_copy(update={"steps": 4, "ema": 0.9})
    whole, halves, resumed = (copy(world.student) for _ in range(3))
    world.run(stage, student=whole)
    polls = iter(range(9))
    folder = tmp_path / "c"
    world.run(stage, student=halves, checkpoint_folder=folder, stop=lambda: next(polls) >= 2)
    world.run(stage, student=resumed, checkpoint_folder=folder, resume=True)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_guided_targets_guide_the_conditional_branch_alone(world: World):
    batch = world.source.batch(0, 4, 0, Drawing(guidance=3.0, both_branches=True))
    plain = batch.without_prompts
    assert plain.guidance is None and plain.unconditional is None
    with torch.no_grad():
        empty = plain.predict(world.teacher)
        assert torch.equal(plain.guided(world.teacher, empty), empty)


# --- what is refused ------------------------------------------------------------------------------


def test_a_model_that_takes_guidance_as_a_number_has_one_branch(world: World, tmp_path: Path):
    source = without_empty(tmp_path, "flux", guidance=3.5)
    assert not source.two_branches and world.source.two_branches
    check_branches(BOTH.model_copy(update={"branches": "conditional"}), "flux")
    for family in ("flux", "flux2"):
        with pytest.raises(BadInput) as refused:
            check_branches(BOTH, family)
        assert family in refused.value.found and "qwenimage" in refused.value.expected
        assert "flux" not in refused.value.expected
        assert refused.value.do == "say branches: conditional"


def test_data_without_the_empty_prompt_is_refused_before_any_step(world: World, tmp_path: Path):
    world.source = without_empty(tmp_path)
    forwards = []
    world.teacher.register_forward_hook(lambda *_: forwards.append(1))
    with pytest.raises(BadInput) as refused:
        world.run(BOTH)
    assert "empty prompt" in refused.value.found and not forwards
    rows = world.run(FULL.model_copy(update={"steps": 1}))
    assert "guidance_gap" not in rows[0].metrics and rows[-1].result["guidance_gap"] is None


# --- the gap --------------------------------------------------------------------------------------


def test_the_gap_is_that_of_numpy(world: World):
    rows = world.run(FULL.model_copy(update={"steps": 3}))
    measured = [i for i, row in enumerate(rows) if "guidance_gap" in row.metrics]
    assert measured == [0, 2], "the first step and the last"
    batch = world.source.batch(0, 8, PROBE_SEED, Drawing(FULL.timesteps, both_branches=True))
    gaps = []
    for model in (world.student, world.teacher):
        with torch.no_grad():
            c = model(**batch.arguments())[0].numpy()
            u = model(**batch.arguments(batch.unconditional))[0].numpy()
        gaps.append((c - u).reshape(8, -1).astype(np.float64))
    own, teachers = gaps
    norms = [np.sqrt((gap**2).sum(1)) for gap in gaps]
    ratio = norms[0].mean() / norms[1].mean()
    cosine = ((own * teachers).sum(1) / norms[0] / norms[1]).mean()
    result = rows[-1].result
    assert result["guidance_gap"] == pytest.approx(ratio, rel=1e-5)
    assert result["guidance_gap_cosine"] == pytest.approx(cosine, rel=1e-5)
    assert rows[2].metrics["guidance_gap"] == result["guidance_gap"]


def test_the_teacher_has_its_own_gap_and_half_a_gap_is_one_half(world: World):
    batch = world.source.batch(0, 8, 5, Drawing(both_branches=True))
    gap = gap_of(world.teacher, batch)
    assert GuidanceGap.of_sums(gap_sums(gap, gap)) == GuidanceGap(1.0, pytest.approx(1.0))
    half = GuidanceGap.of_sums(gap_sums(-gap / 2, gap))
    assert half.ratio == pytest.approx(0.5) and half.cosine == pytest.approx(-1.0)


def test_parts_of_the_samples_add_up_to_the_gap_of_all(world: World):
    batch = world.source.batch(0, 8, 5, Drawing(both_branches=True))
    own, teachers = gap_of(world.student, batch), gap_of(world.teacher, batch)
    parts = [gap_sums(own[p], teachers[p]) for p in (slice(0, 3), slice(3, 8))]
    both = [a + b for a, b in zip(*parts, strict=True)]
    assert both == pytest.approx(gap_sums(own, teachers))


def test_the_gap_of_guided_targets_is_that_of_the_guided_teacher(world: World):
    batch = world.source.batch(0, 4, 5, Drawing(guidance=3.0, both_branches=True))
    inputs = replace(batch.inputs, rescale=False)
    batch = replace(batch, inputs=inputs)
    plain, guided = (gap_of(world.teacher, batch, guided=guided) for guided in (False, True))
    torch.testing.assert_close(guided, 3 * plain, rtol=1e-4, atol=1e-5)


def test_measuring_the_gap_changes_nothing_in_the_run(world: World, monkeypatch):
    stage = FULL.model_copy(update={"steps": 2})
    measured, plain = copy(world.student), copy(world.student)
    world.run(stage, student=measured)
    monkeypatch.setattr(run, "can_measure", lambda work: False)
    world.run(stage, student=plain)
    for a, b in zip(measured.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
    assert EVERY >= 50 and SAMPLES <= 16
