"""Metric recovery: scores against surgery's students, training against distillation's, waves,
memory, and every shape of block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.engine.conftest import STACK, plan_of
from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_families import family_inputs, family_model
from workbench import models, sensitivity, surgery
from workbench.models import Call, prediction
from workbench.models.blocks import State
from workbench.records import BadInput, SensitivityMap
from workbench.sensitivity import Scan, Training, recovery, relative_change
from workbench.sensitivity.recovery import AFTER, BEFORE, Recorded, Recovery, candidates
from workbench.training import losses
from workbench.training.losses import Target

FEW = Training(steps=3, longest=3)


def calls_of(groups: int = 3, same: bool = False) -> list[Call]:
    return [
        Call(tiny_inputs(seed=0 if same else group, timestep=t / 1000), float(t), group, 2, "cond")
        for group in range(groups)
        for t in (900, 100)
    ]


def result(progress: Iterator[Any]) -> SensitivityMap:
    return list(progress)[-1].result


def profile(model: torch.nn.Module, calls: list[Call], how: Training = FEW) -> SensitivityMap:
    return result(
        sensitivity.profile(
            model, models.describe_module(model), calls, metric="recovery", training=how
        )
    )


def table(
    found: SensitivityMap, edit: str
) -> dict[tuple[str, int, int | None, float | None], float]:
    return {
        (row.stack, row.block, row.last, row.timestep): row.score
        for row in found.rows
        if row.edit == edit
    }


def test_zero_shot_is_the_error_of_the_student_with_this_one_span() -> None:
    model, calls = tiny_transformer(depth=4), calls_of()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = profile(model, calls)
    scores, test = table(found, BEFORE), [call for call in calls if call.group == 2]
    assert {(u, k) for _, u, k, _ in scores} == {
        (u, k) for u in range(4) for k in range(u + 1, min(u + 3, 4))
    }
    for shape in found.measured["shapes"]:
        first, last = shape["first"], shape["last"]
        span = {"blocks": [first, last], "init": shape["init"], "gain": shape["gain"]}
        plan = plan_of(
            *({"blocks": b} for b in range(first)),
            span,
            *({"blocks": b} for b in range(last + 1, 4)),
        )
        for call in test:
            with torch.no_grad():
                own = prediction(model(**call.kwargs), model)
                with surgery.applied(model, plan):
                    changed = prediction(model(**call.kwargs), model)
            assert scores[STACK, first, last, call.timestep] == pytest.approx(
                relative_change(own, changed).mean().item(), rel=1e-4
            )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert found.measured["samples"] == 6 and found.measured["held_out"] == 2
    assert found.measured["training"] == {
        "steps": 3,
        "longest": 3,
        "lr": 1.5e-3,
        "seed": 0,
        "optimizer": "muon",
    }
    assert (
        set(found.measured["stability"]) == {BEFORE, AFTER} and found.direction == "higher = keep"
    )


def test_training_repairs_every_span_of_calls_it_has_seen() -> None:
    model, calls = tiny_transformer(depth=3), calls_of(2, same=True)
    found = profile(model, calls, Training(steps=12, longest=2, lr=1e-2))
    before, after = table(found, BEFORE), table(found, AFTER)
    assert all(after[key] < 0.7 * before[key] for key in before)
    assert profile(model, calls, Training(steps=12, longest=2, lr=1e-2)).rows == found.rows


def test_the_loss_is_that_of_teacher_fed_distillation() -> None:
    """Each candidate's first loss against a stage's, on a student whose only span it is."""
    model, call = tiny_transformer(depth=3), calls_of()[0]
    work = Recovery(Scan(model, []), calls_of(), Training(longest=3))
    work.narrow = False
    found: dict[str, float] = {}
    work.run(
        call,
        {c.target: (c, work.made(c, c.span)) for c in work.candidates},
        lambda target, value: found.update({target.label: float(value)}),
        graph=False,
    )
    mask = call.kwargs["encoder_hidden_states_mask"].bool()
    with torch.no_grad(), recovery.losses.capture(model) as held:
        model(**call.kwargs)
    for c in work.candidates:
        block = work.made(c, c.span)
        given = dict(held.inputs[STACK, c.first])
        seen: dict[str, Any] = {}

        def keep(module: Any, args: Any, kwargs: Any, seen: dict[str, Any] = seen) -> None:
            seen.update(kwargs)

        handle = model.transformer_blocks[c.first].register_forward_pre_hook(keep, with_kwargs=True)
        with torch.no_grad():
            model(**call.kwargs)
            handle.remove()
            text, image = block(**{**seen, **given})
        goal = held.outputs[STACK, c.last]
        parts = [
            (image - goal["hidden_states"]).square().mean() / goal["hidden_states"].square().mean()
        ]
        if c.last < 2:  # nobody reads the last block's text
            real = goal["encoder_hidden_states"][mask]
            parts.append((text[mask] - real).square().mean() / real.square().mean())
        assert found[c.target.label] == pytest.approx(torch.stack(parts).mean().item(), rel=1e-4)


def test_waves_do_not_change_a_score() -> None:
    model, calls = tiny_transformer(depth=4), calls_of(2)
    whole, single = (
        profile(model, calls),
        profile(model, calls, Training(steps=3, longest=3, room=1)),
    )
    assert single.rows == whole.rows and single.measured["shapes"] == whole.measured["shapes"]
    found = candidates(Scan(model, []), 3)
    assert [len(wave) for wave in recovery.waves(found, 2 * found[0].bytes)] == [2, 2, 1]
    assert [len(wave) for wave in recovery.waves(found, 0)] == [1] * 5


@pytest.mark.parametrize("name", ["flux", "dit", "sana", "sd3", "zimage", "wan"])
def test_every_shape_of_block(name: str) -> None:
    model = family_model(name)
    calls = [Call(family_inputs(name, seed=group), 500.0, group, 2, "cond") for group in range(2)]
    found = profile(model, calls, Training(steps=2, longest=2))
    teacher, pinned = (
        models.describe_module(model),
        {row.path: row for row in models.family_of(model).stacks},
    )
    wanted = {
        (s.path, b)
        for s in teacher.stacks
        for b in range(s.depth - 1)
        if s.layout_of[b] == s.layout_of[b + 1]
        and not {b, b + 1} & pinned[s.path].pinned_in(s.depth)
    }
    assert {(row.stack, row.block) for row in found.rows} == wanted and len(found.rows) == 2 * len(
        wanted
    )
    assert all(row.last == row.block + 1 and row.score >= 0 for row in found.rows)


def test_what_a_block_was_given_is_kept_until_its_last_target_has_passed() -> None:
    model = tiny_transformer(depth=4)
    wanted = [
        Target((STACK, 0), (STACK, 0), (STACK, last), ("hidden_states",), str(last))
        for last in (1, 2)
    ]
    seen: list[tuple[str, torch.Tensor]] = []

    def each(target: Target, arguments: dict[str, Any], state: State) -> None:
        seen.append((target.label, arguments["hidden_states"]))

    losses.watch(model, Recorded(tiny_inputs()), wanted, each=each)
    assert [label for label, _ in seen] == ["1", "2"] and seen[0][1] is seen[1][1]


def test_it_needs_prompts_to_hold_out_and_spans_to_train() -> None:
    with pytest.raises(
        BadInput,
        match="at least two: the last quarter is held out; give more prompts, or lower --batch",
    ):
        profile(tiny_transformer(depth=3), calls_of(1))
    with pytest.raises(BadInput, match="no two neighbouring blocks"):
        profile(tiny_transformer(depth=1), calls_of(2))
    with pytest.raises(BadInput, match="no calls"):
        profile(tiny_transformer(depth=3), [])
