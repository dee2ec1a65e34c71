"""Where a student's weights and their optimizer's states lie: the same result from anywhere."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from tests.distill_world import World, copy, make_plan
from tests.refusals import refused
from tests.tiny import tiny_transformer
from workbench.distillation import run as run_module
from workbench.distillation.stage_groups import in_groups
from workbench.models import blocks_of, precision
from workbench.models.host_memory import Host
from workbench.records import DistillSpec, Loss, Span, Stage
from workbench.surgery import student_transformer
from workbench.training.batch_source import LatentSource
from workbench.training.optim import Optimizers, check_states

from .test_stages import FED, FULL, PATH

SHORT = FED.model_copy(update={"steps": 2, "batch": 4})
WHOLE = FULL.model_copy(update={"steps": 2, "batch": 4, "warmup": 0})


class OtherPlace(Host):
    """A host that is another place than this CPU: what it takes and gives is copied."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), apart=True)
        self.kept: list[torch.Tensor] = []

    def keep(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        self.kept.append(super().keep(tensor, dtype).clone())
        return self.kept[-1]

    def back(self, tensor: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        return super().back(tensor, dtype).clone()

    def has(self, tensor: torch.Tensor) -> bool:
        return tensor.data_ptr() in {kept.data_ptr() for kept in self.kept}


def losses_and_weights(
    world: World, stages: list[Stage], **options: object
) -> tuple[list[float], dict[str, torch.Tensor]]:
    student = copy(world.student)
    rows = world.run(*stages, student=student, **options)
    return [row.metrics["loss"] for row in rows if row.metrics], student.state_dict()


def assert_same(one: tuple[list[float], dict], other: tuple[list[float], dict]) -> None:
    assert one[0] == other[0] and len(one[0]) > 1
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name


def test_blocks_that_wait_on_the_host_learn_the_same(world: World):
    grouped = SHORT.model_copy(update={"blocks_at_once": 1})
    spec = DistillSpec(stages=[grouped, WHOLE])
    stages = in_groups(spec, {"parent": world.plan, "original": world.plan}).stages
    here = losses_and_weights(world, stages)
    assert_same(here, losses_and_weights(world, stages, host=OtherPlace()))


def test_a_block_waits_while_another_trains_and_is_fetched_for_a_look(world: World):
    host = OtherPlace()
    student = copy(world.student)
    batch = world.source.batch(0, 2, 0)
    with torch.no_grad():
        before = batch.predict(student)
    stage = SHORT.model_copy(update={"train": {PATH: [0]}, "lr": 1e-30, "weight_decay": 0.0})
    waits = []
    for progress in world.run_each(stage, student=student, host=host):
        if progress.metrics:
            blocks = blocks_of(student)[PATH]
            waits.append([all(map(host.has, block.parameters())) for block in blocks])
            with torch.no_grad():
                looked_at = batch.predict(student)
    assert waits == [[False, False, True]] * 2, "the second block lies in the teacher's memory"
    torch.testing.assert_close(looked_at, before)


def test_a_block_that_trains_behind_one_that_is_lent_is_the_students_own(source: LatentSource):
    teacher = tiny_transformer(depth=3)
    plan = make_plan(Span(blocks=(0, 0)), Span(blocks=(1, 1)), Span(blocks=(2, 2)))
    world = World(teacher, plan, student_transformer(teacher, plan), source)
    before = copy(teacher).state_dict()
    world.run(SHORT.model_copy(update={"train": {PATH: [2]}, "weight_decay": 0.1}))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_block_that_waited_is_fitted_all_the_same(world: World):
    waits = SHORT.model_copy(update={"train": {PATH: [2]}})
    fits = SHORT.model_copy(update={"train": {PATH: [0]}, "fit": "output-projections"})
    fitted, _ = losses_and_weights(world, [waits, fits], host=OtherPlace())
    unfitted, _ = losses_and_weights(world, [waits, fits.model_copy(update={"fit": "none"})])
    assert fitted[-1] < unfitted[-1]


@pytest.mark.parametrize("stage", [SHORT, WHOLE], ids=["Muon, blockwise", "AdamW, end to end"])
def test_optimizer_states_on_the_host_give_the_same_weights(world: World, stage: Stage):
    there = stage.model_copy(update={"optimizer_states": "host"})
    host = OtherPlace()
    assert_same(losses_and_weights(world, [stage]), losses_and_weights(world, [there], host=host))
    assert host.kept


def test_states_on_the_host_are_there_between_steps_and_after_a_checkpoint():
    host = OtherPlace()
    p = nn.Parameter(torch.ones(2, 3))

    def optimizers() -> Optimizers:
        return Optimizers([("b.0.w", p)], "adamw", 0.1, 0.0, states="host", host=host)

    first = optimizers()
    p.grad = torch.ones_like(p)
    first.step()
    second = optimizers()
    for name, values in first.state_dict().items():
        second.load_state(name, values)
    for each in (first, second):
        state = each.state_dict()["b.0.w"]
        assert host.has(state["exp_avg"]) and host.has(state["exp_avg_sq"])


def test_states_of_8_bits_learn_nearly_the_same(world: World):
    pytest.importorskip("bitsandbytes")
    narrow = WHOLE.model_copy(update={"optimizer_states": "8bit", "steps": 4})
    wide = narrow.model_copy(update={"optimizer_states": "device"})
    exact, weights = losses_and_weights(world, [wide])
    losses, narrow_weights = losses_and_weights(world, [narrow])
    assert losses == pytest.approx(exact, rel=0.02)
    assert any(not torch.equal(v, weights[name]) for name, v in narrow_weights.items())


def test_states_of_8_bits_go_on_after_a_checkpoint_as_they_were():
    pytest.importorskip("bitsandbytes")

    def weights(reloaded: bool) -> torch.Tensor:
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(128, 64))
        optimizers = Optimizers([("b.0.w", p)], "adamw", 0.01, 0.0, states="8bit")
        for step in range(4):
            if reloaded and step == 2:
                state = optimizers.state_dict()["b.0.w"]
                assert state["state1"].dtype == torch.uint8
                optimizers = Optimizers([("b.0.w", p)], "adamw", 0.01, 0.0, states="8bit")
                optimizers.load_state("b.0.w", state)
            p.grad = torch.randn(128, 64)
            optimizers.step()
        return p.detach()

    assert torch.equal(weights(True), weights(False))


def test_states_that_cannot_be_had_are_refused(monkeypatch: pytest.MonkeyPatch):
    with refused("'x': optimizer_states host with --shard"):
        check_states("x", "host", shard=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with refused("8bit", do="pip install 'dit-workbench[gpu]'"):
        check_states("x", "8bit", shard=False)
    check_states("x", "host", shard=False)


def test_states_of_8_bits_are_adamws():
    with refused(expected="there are such of AdamW"):
        DistillSpec.parse(
            {"stages": [{"name": "x", "optimizer": "muon", "optimizer_states": "8bit"}]}, "x"
        )


def test_frozen_blocks_are_held_in_bfloat16_where_that_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    for module in (precision, run_module):
        monkeypatch.setattr(module, "has_bfloat16", lambda device_type: True)
    for p in world.student.parameters():
        p.data = p.data.bfloat16().float()
    stage = WHOLE.model_copy(
        update={"precision": "bfloat16", "train": {PATH: [0]}, "losses": {"output": Loss()}}
    )
    student = copy(world.student)
    dtypes = set()
    losses = []
    for progress in world.run_each(stage, student=student):
        if progress.metrics:
            losses.append(progress.metrics["loss"])
            blocks = blocks_of(student)[PATH]
            dtypes = {block.img_mlp.net[2].weight.dtype for block in blocks[1:]}
            assert all(p.dtype == torch.float32 for p in blocks[0].parameters())
    assert dtypes == {torch.bfloat16}
    wide = copy(world.student)
    wide._keep_in_fp32_modules = ["attn", "img_mlp", "txt_mlp", "img_mod", "txt_mod"]
    assert [r.metrics["loss"] for r in world.run(stage, student=wide) if r.metrics] == losses
