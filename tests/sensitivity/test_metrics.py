"""Influence against a hand-written hook, CKA and its probes against their definitions, pictures
against surgery's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tiny import SIZE, tiny_inputs, tiny_transformer
from tests.tiny_families import family_inputs, family_model
from tests.tiny_teacher import plan_of
from workbench import models, surgery
from workbench.families import FAMILIES
from workbench.models import Call, Pipeline
from workbench.records import BadInput, SensitivityMap, Teacher
from workbench.sensitivity import cka, pictures
from workbench.sensitivity.pictures import Generation, profile_pictures
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.table import KEEP, METRICS

PROMPTS = ["a red circle", "two blue square", "a green text"]


def result(progress: Iterator) -> SensitivityMap:
    return list(progress)[-1].result


def calls_of(seeds: int = 3) -> list[Call]:
    return [
        Call(tiny_inputs(seed=seed, timestep=t / 1000), float(t), seed, 2, "cond")
        for seed in range(seeds)
        for t in (900, 100)
    ]


def test_every_metric_says_what_it_is() -> None:
    assert METRICS.names()[:6] == [
        "prediction",
        "influence",
        "taylor",
        "cka",
        "recovery",
        "image",
    ]
    for name, metric in METRICS.items():
        assert metric.unit and metric.about
        assert metric.direction == KEEP or name == "cka"
        assert bool(metric.edits) != bool(metric.rows_of), "it makes edits, or bears its own"
    assert METRICS["cka"].direction == "higher = the span can be replaced"


# --- influence ------------------------------------------------------------------------------------


def test_influence_is_one_minus_the_cosine_of_every_token() -> None:
    model = tiny_transformer(depth=3)
    call = calls_of(1)[0]
    seen: dict[int, torch.Tensor] = {}

    def hook(index: int) -> Any:
        def after(
            module: Any,
            args: Any,
            kwargs: dict[str, Any],
            output: tuple[torch.Tensor, torch.Tensor],
        ) -> None:
            joined = (
                torch.cat([kwargs["encoder_hidden_states"], kwargs["hidden_states"]], 1),
                torch.cat(output, 1),
            )
            dots = (joined[0] * joined[1]).sum(-1) / joined[0].norm(dim=-1) / joined[1].norm(dim=-1)
            seen[index] = 1 - dots.mean(1)

        return after

    handles = [
        block.register_forward_hook(hook(i), with_kwargs=True)
        for i, block in enumerate(model.transformer_blocks)
    ]
    with torch.no_grad():
        model(**call.kwargs)
    for handle in handles:
        handle.remove()
    found = result(profile(model, models.describe_module(model), [call], metric="influence"))
    assert (found.metric, found.edits, found.block_evaluations) == ("influence", ["drop"], 3)
    assert found.direction == "higher = keep" and "cosine" in found.unit
    for row in found.rows:
        assert row.score == pytest.approx(seen[row.block].mean().item(), rel=1e-4)
        assert row.stderr == pytest.approx((seen[row.block].std() / 2**0.5).item(), rel=1e-2)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_both_state_metrics_fit_every_family(name: str) -> None:
    model = family_model(name)
    teacher = models.describe_module(model)
    calls = [Call(family_inputs(name, seed=seed), 500.0, seed, 2, "cond") for seed in range(2)]
    depth = {stack.path: stack.depth for stack in teacher.stacks}
    influence = result(profile(model, teacher, calls, metric="influence"))
    assert {path: sum(row.stack == path for row in influence.rows) for path in depth} == depth
    assert all(0 <= row.score <= 2 for row in influence.rows)
    spans = result(profile(model, teacher, calls, metric="cka"))
    assert {path: sum(row.stack == path for row in spans.rows) for path in depth} == {
        p: d * (d + 1) // 2 for p, d in depth.items()
    }
    assert all(
        row.last is not None and row.block <= row.last and 0 <= row.score <= 1 for row in spans.rows
    )


# --- cka ------------------------------------------------------------------------------------------


def test_linear_cka_is_its_definition_and_does_not_mind_rotation_or_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(50, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    centre = torch.eye(50, dtype=torch.float64) - 1 / 50
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    hsic = (k * m).sum() / ((k * k).sum() * (m * m).sum()).sqrt()
    assert cka.linear_cka(x, y) == pytest.approx(hsic.item(), rel=1e-9)
    # both ways
    assert cka.linear_cka(x[:6], y[:6]) == pytest.approx(
        cka.linear_cka(x[:6].repeat(9, 1), y[:6].repeat(9, 1)), rel=1e-9
    )
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    assert cka.linear_cka(x, 3 * x @ turn + 5) == pytest.approx(1)
    assert cka.linear_cka(x, torch.zeros_like(x)) == 0


def test_a_probe_is_least_squares() -> None:
    x = torch.randn(60, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = x @ torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 3
    weight, bias = cka.probe(x, y, ridge=0)
    solution = torch.linalg.lstsq(
        torch.cat([x, torch.ones(60, 1, dtype=torch.float64)], 1), y
    ).solution
    assert torch.allclose(torch.cat([weight, bias[None]]), solution)


def test_spans_of_blocks_that_are_linear_are_replaced_without_loss() -> None:
    """States that a linear map makes from one another score 1; one step that is noise spoils
    exactly the spans over it.
    """
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    maps = [torch.eye(6) + 0.3 * draw(6, 6) for _ in range(3)]
    states = cka.States()
    for side in (states.fit, states.test):
        now = draw(200, 6)
        run = [now, now @ maps[0], now @ maps[0] @ maps[1]]
        run.append(draw(200, 6))  # block 2 gives something new
        run.append(run[-1] @ maps[2])
        side.extend([[state] for state in run])
    scores = {(u, k): value for u, k, value in cka.span_scores(states)}
    assert (
        scores[0, 0] > 0.999
        and scores[1, 1] > 0.999
        and scores[0, 1] > 0.999
        and scores[3, 3] > 0.999
    )
    assert max(scores[span] for span in scores if span[0] <= 2 <= span[1]) < 0.2
    assert len(scores) == 10


def test_a_span_of_one_block_is_scored_against_the_teachers_state() -> None:
    model = tiny_transformer(depth=3)
    found = result(profile(model, models.describe_module(model), calls_of(), metric="cka"))
    assert (found.metric, found.edits, found.timesteps) == ("cka", ["span"], [])
    assert found.direction == "higher = the span can be replaced"
    scores = {(row.block, row.last): row.score for row in found.rows}
    assert set(scores) == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}
    assert found.measured["samples"] == 6 and all(row.stderr is None for row in found.rows)


def batches_of(size: int, prompts: int = 4) -> list[Call]:
    """The same samples, two timesteps each, in batches of `size`."""
    inputs = [tiny_inputs(seed=seed, batch=1) for seed in range(prompts)]
    calls = []
    for group, start in enumerate(range(0, prompts, size)):
        part = inputs[start : start + size]
        for t in (900.0, 100.0):
            kwargs = {**part[0], "timestep": torch.full((len(part),), t / 1000)}
            for name in ("hidden_states", "encoder_hidden_states", "encoder_hidden_states_mask"):
                kwargs[name] = torch.cat([one[name] for one in part])
            kwargs["img_shapes"] = part[0]["img_shapes"] * len(part)
            calls.append(Call(kwargs, t, group, len(part), "cond"))
    return calls


def test_cka_is_scored_on_prompts_that_no_probe_has_seen_whatever_the_batch() -> None:
    """Batches of one held nothing out: probes were scored on the states they were fitted on."""
    model = tiny_transformer(depth=3)
    teacher = models.describe_module(model)
    single, pairs, whole = (
        result(profile(model, teacher, batches_of(size), metric="cka")) for size in (1, 2, 4)
    )
    for one, two, four in zip(single.rows, pairs.rows, whole.rows, strict=True):
        assert one.score == pytest.approx(two.score, rel=1e-4)
        assert one.score == pytest.approx(four.score, rel=1e-4)


def test_cka_keeps_the_seeds_of_a_prompt_on_one_side() -> None:
    halves = cka.Halves()
    calls = [
        replace(calls_of(1)[0], prompts=names) for names in (("a", "b"), ("a", "c"), ("b", "d"))
    ]
    sides = [halves.held_out(call).tolist() for call in calls]
    assert sides == [[False, True], [False, False], [True, True]]


def test_cka_needs_a_prompt_to_hold_out() -> None:
    model = tiny_transformer(depth=2)
    one = [call for call in batches_of(1, prompts=1)]
    with pytest.raises(BadInput) as error:
        result(profile(model, models.describe_module(model), one, metric="cka"))
    assert error.value.do == "give more prompts"


def test_an_unknown_metric(teacher: Teacher, pipe: Pipeline) -> None:
    for name in ("taste", "image"):
        with pytest.raises(BadInput) as error:
            result(profile(pipe.transformer, teacher, calls_of(1), metric=name))
        assert name in error.value.found
        assert "one of prediction, influence, taylor, cka, recovery" in error.value.expected


def test_metrics_without_edits_of_their_own_take_none(teacher: Teacher, pipe: Pipeline) -> None:
    with pytest.raises(BadInput) as error:
        result(profile(pipe.transformer, teacher, calls_of(1), metric="cka", edits=["drop"]))
    assert error.value.do == "leave --edits out"


# --- pictures -------------------------------------------------------------------------------------


def likeness(pictures: list[Image.Image], own: list[Image.Image]) -> list[float]:
    return [
        -float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())
        for a, b in zip(pictures, own, strict=True)
    ]


def test_pictures_are_those_of_the_edited_model(
    pipe: Pipeline, teacher: Teacher, tmp_path: Path
) -> None:
    """Each block's pictures against surgery's preview of the plan without that block."""
    generation = Generation([1, 2, 3], steps=2, guidance=1, size=SIZE)
    how = asdict(generation)
    found = result(
        profile_pictures(
            pipe,
            teacher,
            PROMPTS,
            score=likeness,
            scorer="likeness",
            edits=["drop", "merge"],
            generation=generation,
        )
    )
    assert (found.metric, found.direction, found.timesteps) == ("image", "higher = keep", [])
    assert "likeness" in found.unit and found.measured["baseline"] == 0
    assert len(found.rows) == 6 + 5 and all(
        row.stderr is not None and row.timestep is None for row in found.rows
    )
    [own] = models.generate(pipe, PROMPTS, **how)
    kept = [{"blocks": b} for b in range(6)]
    for edit, span in (
        ("drop", {"blocks": [2, 3], "init": "last"}),
        ("merge", {"blocks": [2, 3], "init": "mean", "gain": 2}),
    ):
        with surgery.applied(pipe, plan_of(*kept[:2], span, *kept[4:])):
            [changed] = models.generate(pipe, PROMPTS, **how)
        row = next(row for row in found.rows if row.edit == edit and row.block == 2)
        assert row.score == pytest.approx(-np.mean(likeness(changed, own)), rel=1e-6)


def test_pictures_resume(
    pipe: Pipeline, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {
        "generation": Generation([1], steps=2, guidance=1, size=SIZE),
        "score": likeness,
        "scorer": "likeness",
    }
    scan = profile_pictures(pipe, teacher, PROMPTS[:1], partial=tmp_path / "partial", **how)
    next(scan), next(scan), next(scan)
    scan.close()
    whole = result(profile_pictures(pipe, teacher, PROMPTS[:1], **how))
    made: list[int] = []
    real = pictures.generate
    monkeypatch.setattr(pictures, "generate", lambda *a, **k: (made.append(1), real(*a, **k))[1])
    resumed = result(
        profile_pictures(pipe, teacher, PROMPTS[:1], partial=tmp_path / "partial", **how)
    )
    # the teacher's own, and three blocks of six
    assert resumed.rows == whole.rows and len(made) == 1 + 3


def test_a_scorer_that_breaks_is_named(pipe: Pipeline, teacher: Teacher) -> None:
    work = profile_pictures(
        pipe,
        teacher,
        PROMPTS[:1],
        generation=Generation([1], steps=2, guidance=1, size=SIZE),
        scorer="nan",
        score=lambda pictures, own: [float("nan")] * len(pictures),
    )
    with pytest.raises(BadInput) as error:
        result(work)
    assert error.value.found == "the scorer's value is not finite with no edit"
