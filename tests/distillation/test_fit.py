"""Fitted output projections, against numpy's least squares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny_families
from tests.distill_world import World, copy
from workbench import models, surgery
from workbench.distillation.projection_fit import Example, ProjectionFit, output_projections
from workbench.models.blocks import Block, block_at, capture, streams_out
from workbench.records import BadInput, Plan, Span
from workbench.training.batch import Drawing

from .test_stages import FED, FULL, PATH

FIT = FED.model_copy(update={"fit": "output-projections", "steps": 0, "batch": 8})
IMAGE, TEXT = "hidden_states", "encoder_hidden_states"
FAMILIES = [
    ("qwenimage", 0, ["img_mlp.net.2", "txt_mlp.net.2"]),
    ("flux", 0, ["ff.net.2", "ff_context.net.2"]),
    ("flux", 1, ["proj_out"]),
    ("flux2", 0, ["ff.linear_out", "ff_context.linear_out"]),
    ("flux2", 1, ["attn.to_out"]),
    ("sd3", 0, ["ff.net.2", "ff_context.net.2"]),
    ("pixart", 0, ["ff.net.2"]),
    ("auraflow", 0, ["ff.out_projection", "ff_context.out_projection"]),
    ("cogview4", 0, ["ff.net.2"]),
]


def examples_of(
    model: torch.nn.Module, block: Block, calls: list[dict], goal: Callable
) -> list[Example]:
    """What the block is given in these calls of the model, and a goal made from what it returns."""
    seen: list[Example] = []

    def note(module, args, kwargs, output):
        bound = models.sampling.inspect.signature(block.module.forward).bind(*args, **kwargs)
        state = {n: goal(v) for n, v in streams_out(block.row, output).items()}
        seen.append(Example(dict(bound.arguments), state))

    handle = block.module.register_forward_hook(note, with_kwargs=True)
    with torch.no_grad():
        for call in calls:
            model(**call)
    handle.remove()
    return seen


def family_block(name: str, stack: int) -> tuple[torch.nn.Module, Block, list[dict]]:
    model = tiny_families.family_model(name)
    path = list(models.blocks_of(model))[stack]
    calls = [tiny_families.family_inputs(name, seed, 0.2 + 0.1 * seed) for seed in range(4)]
    return model, block_at(model, (path, 0)), calls


def another(value: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(value.numel())
    return value + 0.1 * torch.randn(value.shape, generator=generator)


def by_lstsq(
    block: Block, linear: torch.nn.Linear, examples: list[Example], stream: str, ridge: float
) -> np.ndarray:
    """(C, K) change of weights and bias, channel by channel. The gates are read off by moving the
    bias of one channel after the other.
    """
    inputs, errors, gates = [], [], []
    handle = linear.register_forward_hook(
        lambda module, args, output: inputs.append(args[0].flatten(0, -2).double().numpy())
    )

    def output(example: Example) -> np.ndarray:
        with torch.no_grad():
            state = streams_out(block.row, block.module(**example.arguments))[stream]
        return state.flatten(0, -2).double().numpy()

    for example in examples:
        base = output(example)
        errors.append(example.goal[stream].flatten(0, -2).double().numpy() - base)
    count = len(inputs)
    for example in examples:
        base = output(example)
        gate = np.zeros_like(base)
        for channel in range(linear.out_features):
            with torch.no_grad():
                linear.bias[channel] += 1
            gate[:, channel] = (output(example) - base)[:, channel]
            with torch.no_grad():
                linear.bias[channel] -= 1
        gates.append(gate)
    handle.remove()
    h = np.concatenate(inputs[:count])
    h = np.concatenate([h, np.ones((len(h), 1))], 1)
    e, g = np.concatenate(errors), np.concatenate(gates)
    gram = (h * (g**2).mean(1, keepdims=True)).T @ h
    share = (g**2).sum(0) / (g**2).sum(0).mean()
    change = []
    for channel in range(e.shape[1]):
        penalty = np.sqrt(ridge * np.diag(gram).mean() * share[channel]) * np.eye(h.shape[1])
        rows = np.concatenate([g[:, channel, None] * h, penalty])
        target = np.concatenate([e[:, channel], np.zeros(h.shape[1])])
        change.append(np.linalg.lstsq(rows, target, rcond=None)[0])
    return np.array(change)


def weights(linear: torch.nn.Linear) -> np.ndarray:
    return torch.cat([linear.weight, linear.bias[:, None]], 1).detach().double().numpy()


def test_the_fit_is_that_of_numpy_with_ridge_rows():
    """Of both streams of a dual block, whose gates differ between samples and channels."""
    model, block, calls = family_block("qwenimage", 0)
    examples = examples_of(model, block, calls, another)
    linears = output_projections(block)
    expected = {}
    for name, stream in zip(linears, (IMAGE, TEXT), strict=True):
        change = by_lstsq(block, linears[name], examples, stream, ridge=0.01)
        expected[name] = weights(linears[name]) + change
    fit = ProjectionFit(block, (IMAGE, TEXT), examples, ridge=0.01, passes=500, enough=1e-12)
    before, after = fit.run()
    assert after < before
    for name, linear in linears.items():
        np.testing.assert_allclose(weights(linear), expected[name], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize(("family", "stack", "names"), FAMILIES)
def test_the_loss_never_rises_in_any_family(family: str, stack: int, names: list[str]):
    model, block, calls = family_block(family, stack)
    assert list(output_projections(block)) == names
    for goal in (another, lambda value: value):
        examples = examples_of(model, block, calls, goal)
        streams = list(examples[0].goal)
        for passes in (1, 3, 12):
            changed = copy(block.module)
            fit = ProjectionFit(
                Block(block.place, changed, block.row), streams, examples, passes=passes
            )
            before, after = fit.run()
            assert after <= before * (1 + 1e-6) + 1e-12
            state = streams_out(block.row, changed(**examples[0].arguments))
            assert set(state) == set(streams)


@pytest.mark.parametrize("family", ["zimage", "lumina2", "sana"])
def test_a_block_whose_branch_does_not_end_in_a_linear_is_refused(family: str):
    model, block, calls = family_block(family, 0)
    examples = examples_of(model, block, calls, another)
    before = {n: p.clone() for n, p in block.module.named_parameters()}
    with pytest.raises(BadInput) as refused:
        ProjectionFit(block, list(examples[0].goal), examples).run()
    assert "fit of block 0" in refused.value.found and refused.value.do.startswith("remove fit")
    assert all(torch.equal(p, before[n]) for n, p in block.module.named_parameters())


def test_a_goal_that_the_projection_can_reach_is_reached():
    model, block, calls = family_block("flux", 1)
    linear = block.module.proj_out
    wanted = copy(block.module)
    with torch.no_grad():
        wanted.proj_out.weight += 0.05 * torch.randn_like(linear.weight)
    examples = []
    for example in examples_of(model, block, calls, another):
        with torch.no_grad():
            goal = streams_out(block.row, wanted(**example.arguments))
        examples.append(Example(example.arguments, goal))
    before, after = ProjectionFit(block, (TEXT, IMAGE), examples, ridge=1e-9, passes=100).run()
    assert after < 1e-3 * before


# --- as a stage -----------------------------------------------------------------------------------


def span_losses(world: World, student: torch.nn.Module) -> list[float]:
    """Mean squared error of the merged blocks on the samples of the fit, teacher-fed."""
    losses = []
    for place, first, last in (((PATH, 0), 0, 1), ((PATH, 2), 3, 5)):
        squares, count = 0.0, 0
        for step in range(32):
            batch = world.source.batch(step, 8, 2**33, Drawing(FIT.timesteps))
            with torch.no_grad(), capture(world.teacher) as seen:
                batch.predict(world.teacher)
                handle = call_of(world.teacher, (PATH, first))
                batch.predict(world.teacher)
                arguments = handle()
                block = block_at(student, place)
                state = streams_out(block.row, block.module(**arguments))
            for name, value in state.items():
                if name == TEXT and last == 5:
                    continue
                error = value - seen.outputs[PATH, last][name]
                if name == TEXT and batch.text_mask is not None:
                    error = error[batch.text_mask]
                squares += float(error.square().sum())
                count += error.numel()
        losses.append(squares / count)
    return losses


def call_of(model: torch.nn.Module, place: tuple[str, int]) -> Callable[[], dict]:
    """The arguments of a block's next call."""
    block = block_at(model, place)
    seen: list[dict] = []

    def note(module, args, kwargs):
        bound = models.sampling.inspect.signature(module.forward).bind(*args, **kwargs)
        seen.append(dict(bound.arguments))

    handle = block.module.register_forward_pre_hook(note, with_kwargs=True)

    def arguments() -> dict:
        handle.remove()
        return seen[-1]

    return arguments


def test_a_stage_of_no_steps_fits_the_changed_blocks_and_nothing_else(world: World):
    before = {name: p.clone() for name, p in world.student.named_parameters()}
    unfitted = span_losses(world, world.student)
    rows = world.run(FIT)
    fitted = span_losses(world, world.student)
    assert all(a < b for a, b in zip(fitted, unfitted, strict=True))
    messages = [row.message for row in rows if row.message.startswith("fit of")]
    for message, old, new in zip(messages, unfitted, fitted, strict=True):
        assert f"mean squared error {old:.3g}, {new:.3g} after" in message
    changed = {n for n, p in world.student.named_parameters() if not torch.equal(p, before[n])}
    assert {name.split(".")[1] for name in changed} == {"0", "2"}
    assert {name.split(".")[2] for name in changed} == {"img_mlp", "txt_mlp"}


def test_a_block_of_the_teachers_own_is_left_alone(world: World):
    world.plan = Plan(
        teacher="tiny", family="qwenimage", stacks={PATH: [Span(blocks=(b, b)) for b in range(6)]}
    )
    stage = FIT.model_copy(update={"train": "all", "steps": 1, "lr": 1e-30, "optimizer": "adamw"})
    student = surgery.student_transformer(world.teacher, world.plan)
    assert not [r for r in world.run(stage, student=student) if r.message.startswith("fit of")]


def test_a_run_with_a_fit_resumes_bit_for_bit(world: World, tmp_path: Path):
    stages = [FIT, FULL.model_copy(update={"steps": 3, "optimizer": "adamw"})]
    whole, halves, resumed = (copy(world.student) for _ in range(3))
    world.run(*stages, student=whole)
    folder = tmp_path / "c"
    for after in (1, 4):  # within the fit, and after a step
        polls = iter(range(99))
        stopped = world.run(
            *stages,
            student=copy(halves),
            checkpoint_folder=folder,
            stop=lambda after=after, polls=polls: next(polls) >= after - 1,
        )[-1]
        assert stopped.result["stopped"]
        resumed = copy(halves)
        world.run(*stages, student=resumed, checkpoint_folder=folder, resume=True)
        for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(a, b)
