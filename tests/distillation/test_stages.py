"""What each kind of stage trains, feeds and compares."""

from __future__ import annotations

import pytest
import torch

from tests.distill_world import World, copy, make_plan
from tests.refusals import refused
from workbench import surgery
from workbench.distillation.trainable import trained_blocks, trained_parameters
from workbench.models import blocks_of
from workbench.plans import identity
from workbench.records import Loss, Span, Stage
from workbench.training.batch_loss import BlockwiseLoss, StageTerms, end_to_end
from workbench.training.forward_order import parameters_in_order
from workbench.training.span_states import observe
from workbench.training.targets import targets

FED = Stage(name="fed", steps=30, batch=8, lr=3e-3, optimizer="muon")
FULL = Stage(
    name="full",
    inputs="student",
    gradient="full",
    losses={"output": Loss(), "feature": Loss(weight=0.1)},
    train="all",
    steps=40,
    batch=8,
    lr=1e-3,
    warmup=4,
    schedule="linear",
)
PATH = "transformer_blocks"


def test_teacher_fed_lowers_the_loss_of_every_span(world: World):
    rows = [p.metrics for p in world.run(FED) if p.metrics]
    names = [f"loss/{PATH}.0", f"loss/{PATH}.2"]
    first, last = (
        torch.tensor([[row[name] for name in names] for row in part]).mean(0)
        for part in (rows[:5], rows[-5:])
    )
    assert len(first) == 2 and (last < 0.8 * first).all()


def test_end_to_end_lowers_output_and_feature_loss(world: World):
    rows = [p.metrics for p in world.run(FULL) if p.metrics]
    for name in ("output", "feature"):
        assert sum(r[name] for r in rows[-5:]) < 0.85 * sum(r[name] for r in rows[:5])


def test_task_loss_alone_runs_without_the_teacher(world: World):
    calls = []
    world.teacher.register_forward_hook(lambda *_: calls.append(1))
    task = FULL.model_copy(update={"losses": {"task": Loss(form="plain")}, "steps": 2})
    assert [p.metrics["task"] > 0 for p in world.run(task) if p.metrics] == [
        True,
        True,
    ] and not calls


def test_a_span_gives_no_gradient_to_another(world: World):
    batch = world.source.batch(0, 4, 0)
    wanted = targets(world.teacher, world.plan, FED, [(PATH, 0)])
    terms = StageTerms.of(FED).spans
    BlockwiseLoss(world.student, wanted, terms, lambda value: value.backward()).run(
        world.teacher, batch, teacher_fed=True
    )
    blocks = blocks_of(world.student)[PATH]
    assert any(p.grad is not None for p in blocks[0].parameters())
    assert all(p.grad is None for block in blocks[1:] for p in block.parameters())
    assert world.student.img_in.weight.grad is None


def test_teacher_runs_no_block_after_the_last_span_that_trains(world: World):
    ran = []
    for index, block in enumerate(blocks_of(world.teacher)[PATH]):
        block.register_forward_pre_hook(lambda *_, index=index: ran.append(index))
    world.run(FED.model_copy(update={"train": {PATH: [0]}, "steps": 4}))
    assert ran == [0, 1] * (4 + 2), (
        "a step runs the teacher once, and the spans are measured before and after"
    )


def test_identity_student_has_no_loss(world: World):
    from workbench.models import describe_module

    plan = identity(describe_module(world.teacher))
    student = surgery.student_transformer(world.teacher, plan)
    batch, places = world.source.batch(0, 4, 0), [(PATH, i) for i in range(6)]
    wanted = targets(world.teacher, plan, FULL, places)
    seen = observe(world.teacher, batch, wanted, predict=True)
    terms = StageTerms.of(FULL)
    values = end_to_end(student, batch, seen, wanted, terms, lambda _: None)
    assert values.parts == {"feature": 0.0, "output": 0.0}
    assert values.spans == {"feature": [0.0] * 6}
    for fed in (True, False):
        blockwise = BlockwiseLoss(student, wanted, terms.spans, lambda _: None)
        values = blockwise.run(world.teacher, batch, teacher_fed=fed)
        assert values.spans == {"feature": [0.0] * 6}


def test_own_states_by_span_stops_gradients_too(world: World):
    stage = FED.model_copy(update={"inputs": "student", "steps": 2})
    before = {n: p.clone() for n, p in world.student.named_parameters()}
    world.run(stage)
    moved = {
        n.split(".")[1]
        for n, p in world.student.named_parameters()
        if not torch.equal(p, before[n])
    }
    assert moved == {"0", "2"}


def test_teacher_fed_with_full_gradient_is_refused(world: World):
    with refused(expected="stage 'full'", found="a stage"):
        Stage.parse({**FULL.model_dump(), "inputs": "teacher"}, "a stage")


def test_a_stage_that_trains_nothing_is_refused(world: World):
    world.plan = make_plan(*[Span(blocks=(b, b)) for b in range(6)])
    with refused(found="'fed' trains nothing (train: merged)", expected="train: all"):
        world.run(FED, student=copy(world.teacher))


@pytest.mark.parametrize(
    ("train", "blocks", "outside"),
    [
        ("merged", [0, 2], []),
        ("after-first-cut", [0, 1, 2], ["norm_out", "proj_out"]),
        ({PATH: [1]}, [1], []),
        (
            "all",
            [0, 1, 2],
            ["img_in", "norm_out", "proj_out", "time_text_embed", "txt_in", "txt_norm"],
        ),
    ],
)
def test_what_trains(world: World, train: object, blocks: list[int], outside: list[str]):
    stage = FED.model_copy(update={"train": train})
    places = trained_blocks(world.student, world.plan, stage)
    order = parameters_in_order(world.student, world.source.batch(0, 1, 0))
    names = trained_parameters(world.student, stage, places, order)
    assert [index for _, index in places] == blocks
    assert sorted({n.split(".")[0] for n in names} - {PATH}) == outside


def test_after_first_cut_freezes_what_comes_before(world: World):
    ends = (0, 0), (1, 1), (2, 3), (4, 4), (5, 5)
    plan = make_plan(*[Span(blocks=pair) for pair in ends])
    student = surgery.student_transformer(world.teacher, plan)
    stage = FED.model_copy(update={"train": "after-first-cut"})
    assert trained_blocks(student, plan, stage) == [(PATH, 3), (PATH, 4)]


def test_binary_scale_freezes_the_sensitive_blocks(world: World):
    stage = FULL.model_copy(update={"scale": "binary", "steps": 2})
    world.plan = make_plan(
        Span(blocks=(0, 0)), Span(blocks=(1, 1)), Span(blocks=(2, 2)), Span(blocks=(3, 5))
    )
    student = surgery.student_transformer(world.teacher, world.plan)
    before = {n: p.clone() for n, p in student.named_parameters()}
    scores = {(PATH, b): s for b, s in enumerate([9.0, 0.1, 0.2, 5.0, 5.0, 5.0])}
    world.run(stage, student=student, scores=scores)
    moved = {
        n.split(".")[1]
        for n, p in student.named_parameters()
        if n.startswith(PATH) and not torch.equal(p, before[n])
    }
    assert moved == {"1", "2", "3"}
    with refused(found="stage 'full'", do="--sensitivity map.json"):
        world.run(stage, student=student)


def test_the_unread_text_half_of_the_last_block_stays(world: World):
    before = {n: p.clone() for n, p in world.student.named_parameters()}
    world.run(FULL.model_copy(update={"weight_decay": 0.5, "steps": 2}))
    after = dict(world.student.named_parameters())
    dead = [n for n in after if n.startswith((f"{PATH}.2.txt_mlp", f"{PATH}.2.attn.to_add_out"))]
    assert dead and all(torch.equal(after[n], before[n]) for n in dead)
    assert not torch.equal(
        after[f"{PATH}.2.img_mlp.net.2.weight"], before[f"{PATH}.2.img_mlp.net.2.weight"]
    )


def test_two_small_batches_give_the_gradient_of_one_large(world: World):
    grads = []
    for batch, accumulate in ((8, 1), (4, 2)):
        student = copy(world.student)
        kept: dict[str, torch.Tensor] = {}
        for name, p in student.named_parameters():

            def add(
                g: torch.Tensor, name: str = name, kept: dict[str, torch.Tensor] = kept
            ) -> None:
                kept[name] = kept.get(name, 0) + g

            p.register_hook(add)
        plain = {"output": Loss(form="plain")}
        world.run(
            FULL.model_copy(
                update={"batch": batch, "accumulate": accumulate, "steps": 1, "losses": plain}
            ),
            student=student,
        )
        grads.append(kept)
    scale = max(float(g.abs().max()) for g in grads[0].values())
    assert max(float((grads[0][n] - grads[1][n]).abs().max()) for n in grads[0]) < 1e-5 * scale


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_gradient_checkpointing_changes_nothing(world: World, precision: str):
    stage = FULL.model_copy(update={"steps": 2, "precision": precision})
    losses_of = [
        [
            p.metrics["loss"]
            for p in world.run(stage, student=copy(world.student), gradient_checkpointing=on)
            if p.metrics
        ]
        for on in (False, True)
    ]
    assert losses_of[0] == pytest.approx(losses_of[1], rel=1e-4)
