"""Influence against a hand-written hook, CKA and its probes against their definitions, pictures
against surgery's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.engine.conftest import plan_of
from tests.tiny import SIZE, tiny_inputs, tiny_transformer
from tests.tiny_families import family_inputs, family_model
from workbench import models, sensitivity, surgery
from workbench.families import FAMILIES
from workbench.models import Call, Pipeline
from workbench.records import BadInput, SensitivityMap, Teacher
from workbench.sensitivity import cka

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
    for name, metric in sensitivity.METRICS.items():
        assert metric.unit and metric.direction.startswith("higher = ") and metric.about
        assert (metric.direction == "higher = keep") == (name != "cka")
        assert (metric.call is not None) == (metric.needs == "calls")


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
    found = result(
        sensitivity.profile(model, models.describe_module(model), [call], metric="influence")
    )
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
    influence = result(sensitivity.profile(model, teacher, calls, metric="influence"))
    assert {path: sum(row.stack == path for row in influence.rows) for path in depth} == depth
    assert all(0 <= row.score <= 2 for row in influence.rows)
    spans = result(sensitivity.profile(model, teacher, calls, metric="cka"))
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
    found = result(
        sensitivity.profile(model, models.describe_module(model), calls_of(), metric="cka")
    )
    assert (found.metric, found.edits, found.timesteps) == ("cka", ["span"], [])
    assert found.direction == "higher = the span can be replaced"
    scores = {(row.block, row.last): row.score for row in found.rows}
    assert set(scores) == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}
    assert found.measured["samples"] == 6 and all(row.stderr is None for row in found.rows)


def test_an_unknown_metric(teacher: Teacher, pipe: Pipeline) -> None:
    for name in ("taste", "image"):
        with pytest.raises(BadInput, match="one of prediction, influence, cka"):
            result(sensitivity.profile(pipe.transformer, teacher, calls_of(1), metric=name))


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
    how: dict[str, Any] = {"seeds": [1, 2, 3], "steps": 2, "guidance": 1, "size": SIZE}
    found = result(
        sensitivity.profile_pictures(
            pipe,
            teacher,
            PROMPTS,
            score=likeness,
            scorer="likeness",
            edits=["drop", "merge"],
            **how,
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
        "seeds": [1],
        "steps": 2,
        "guidance": 1,
        "size": SIZE,
        "score": likeness,
        "scorer": "likeness",
    }
    scan = sensitivity.profile_pictures(
        pipe, teacher, PROMPTS[:1], partial=tmp_path / "partial", **how
    )
    next(scan), next(scan), next(scan)
    scan.close()
    whole = result(sensitivity.profile_pictures(pipe, teacher, PROMPTS[:1], **how))
    made: list[int] = []
    real = sensitivity.pictures.generate
    monkeypatch.setattr(
        sensitivity.pictures, "generate", lambda *a, **k: (made.append(1), real(*a, **k))[1]
    )
    resumed = result(
        sensitivity.profile_pictures(
            pipe, teacher, PROMPTS[:1], partial=tmp_path / "partial", **how
        )
    )
    # the teacher's own, and three blocks of six
    assert resumed.rows == whole.rows and len(made) == 1 + 3


def test_a_scorer_that_breaks_is_named(pipe: Pipeline, teacher: Teacher) -> None:
    with pytest.raises(BadInput, match="not finite with no edit"):
        result(
            sensitivity.profile_pictures(
                pipe,
                teacher,
                PROMPTS[:1],
                seeds=[1],
                steps=2,
                guidance=1,
                size=SIZE,
                scorer="nan",
                score=lambda pictures, own: [float("nan")] * len(pictures),
            )
        )
