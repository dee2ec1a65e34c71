"""Metric recovery: scores against surgery's students, training against distillation's, waves,
memory, and every shape of block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_families import family_inputs, family_model
from tests.tiny_teacher import STACK, plan_of
from workbench import models, surgery
from workbench.models import Call, blocks, prediction
from workbench.models.blocks import State
from workbench.records import BadInput, SensitivityMap
from workbench.sensitivity.candidates import candidates, waves
from workbench.sensitivity.error import relative_change
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.recovery_training import AFTER, BEFORE, Recovery, Training, split
from workbench.sensitivity.scan import Scan
from workbench.sensitivity.scan_settings import Setting
from workbench.sensitivity.teacher_fed import Recorded, Trainee
from workbench.training.span_states import visit_spans
from workbench.training.targets import Target

FEW = Training(steps=3, longest=3)


def calls_of(groups: int = 3, same: bool = False) -> list[Call]:
    return [
        Call(tiny_inputs(seed=0 if same else group, timestep=t / 1000), float(t), group, 2, "cond")
        for group in range(groups)
        for t in (900, 100)
    ]


def result(progress: Iterator[Any]) -> SensitivityMap:
    return list(progress)[-1].result


def recovery_map(model: torch.nn.Module, calls: list[Call], how: Training = FEW) -> SensitivityMap:
    teacher = models.describe_module(model)
    return result(profile(model, teacher, calls, metric="recovery", setting=Setting(options=how)))


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
    found = recovery_map(model, calls)
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
    found = recovery_map(model, calls, Training(steps=12, longest=2, lr=1e-2))
    before, after = table(found, BEFORE), table(found, AFTER)
    assert all(after[key] < 0.7 * before[key] for key in before)
    assert recovery_map(model, calls, Training(steps=12, longest=2, lr=1e-2)).rows == found.rows


def test_the_loss_is_that_of_teacher_fed_distillation() -> None:
    """Each candidate's first loss against a stage's, on a student whose only span it is."""
    model, call = tiny_transformer(depth=3), calls_of()[0]
    work = Recovery(Scan(model), calls_of(), Training(longest=3))
    work.fed.narrow = False
    trainees = [Trainee(c, work.block(c, c.start, torch.float32)) for c in work.candidates]
    work.fed.run(call, trainees, Trainee.add, graph=False)
    found = {trainee.candidate.target.label: trainee.total for trainee in trainees}
    mask = call.kwargs["encoder_hidden_states_mask"].bool()
    with torch.no_grad(), blocks.capture(model) as held:
        model(**call.kwargs)
    for c in work.candidates:
        block = work.block(c, c.start, torch.float32)
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
        recovery_map(model, calls),
        recovery_map(model, calls, Training(steps=3, longest=3, room=1)),
    )
    assert single.rows == whole.rows and single.measured["shapes"] == whole.measured["shapes"]
    found = candidates(Scan(model), 3)
    assert [len(wave) for wave in waves(found, 2 * found[0].training_bytes)] == [2, 2, 1]
    assert [len(wave) for wave in waves(found, 0)] == [1] * 5


@pytest.mark.parametrize("name", ["flux", "dit", "sana", "sd3", "zimage", "wan"])
def test_every_shape_of_block(name: str) -> None:
    model = family_model(name)
    calls = [Call(family_inputs(name, seed=group), 500.0, group, 2, "cond") for group in range(2)]
    found = recovery_map(model, calls, Training(steps=2, longest=2))
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

    visit_spans(model, Recorded(tiny_inputs()), wanted, each)
    assert [label for label, _ in seen] == ["1", "2"] and seen[0][1] is seen[1][1]


def test_no_prompt_is_trained_on_and_scored_on() -> None:
    """Seeds of one prompt may fall into two batches: the batch that shares it is left out."""
    batches = [("a", "a", "a"), ("b", "b", "b"), ("c", "c", "d"), ("d", "d", "e")]
    calls = [
        Call({}, float(t), group, 3, "cond", prompts)
        for group, prompts in enumerate(batches)
        for t in (900, 100)
    ]
    learn, test = split(calls)
    assert {call.group for call in test} == {3} and {call.group for call in learn} == {0, 1}
    with pytest.raises(BadInput):
        split([replace(call, prompts=("a",)) for call in calls])


def test_stability_pairs_the_held_out_samples_with_their_prompts() -> None:
    """Two seeds a prompt, the training batches left out: 2 prompts were scored on, not 4 samples
    that are paired by their place."""
    model = tiny_transformer(depth=4)
    calls = [replace(call, prompts=(f"prompt {call.group}",) * 2) for call in calls_of(8)]
    found = recovery_map(model, calls)
    assert found.measured["held_out"] == 4
    assert {edit: one.prompts for edit, one in found.stability.items()} == {BEFORE: 2, AFTER: 2}


def test_it_needs_prompts_to_hold_out_and_spans_to_train() -> None:
    cases = [
        (3, calls_of(1), "give more prompts, or lower --batch"),
        (1, calls_of(2), "choose another metric"),
        (3, [], "give prompts"),
    ]
    for depth, calls, do in cases:
        with pytest.raises(BadInput) as error:
            recovery_map(tiny_transformer(depth=depth), calls)
        assert error.value.do == do
