"""Every edit that applies, in every family; six of them through their own pipelines, as `info` and
`profile` do it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_families import family_inputs, family_model
from tests.tiny_pipelines import PIPELINES, tiny_pipeline
from tests.ui.conftest import built_page
from workbench import models, tasks
from workbench.families import FAMILIES
from workbench.models import Call
from workbench.models.block_cache import block_for
from workbench.models.blocks import forwards
from workbench.records import BadInput, Plan, SensitivityMap, Teacher
from workbench.sensitivity import scan as scan_module
from workbench.sensitivity.edits import parse_edit
from workbench.sensitivity.error import relative_change
from workbench.sensitivity.metrics import prediction
from workbench.sensitivity.profiling import naive_profile, profile
from workbench.sensitivity.scan import Scan
from workbench.ui import catalogue
from workbench.ui.plan_state import PlanView
from workbench.workspace.store import Store

CAN_SINGLE = {"qwenimage", "flux", "sd3", "hunyuanimage", "auraflow"}


def edits_of(teacher: Teacher) -> list[str]:
    """Every edit a plan can make, and 4 bits."""
    parts = {f"drop:{part}" for row in FAMILIES[teacher.family].stacks for part in row.parts}
    return ["drop", "merge", "merge:first", "merge:last:1", "single", "int4", *sorted(parts)]


def calls_of(name: str) -> list[Call]:
    return [Call(family_inputs(name, seed=1), 500.0, 0, 2, "cond")]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_cached_equals_naive_for_every_edit(name: str) -> None:
    model = family_model(name)
    teacher = models.describe_module(model)
    cached = list(profile(model, teacher, calls_of(name), edits=edits_of(teacher)))[-1].result
    naive = list(naive_profile(model, teacher, calls_of(name), edits=edits_of(teacher)))[-1].result
    for one, other in zip(cached.rows, naive.rows, strict=True):
        assert (one.stack, one.block, one.edit) == (other.stack, other.block, other.edit)
        assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-12)
    assert cached.block_evaluations < naive.block_evaluations == naive.naive_block_evaluations
    applied = set(cached.edits)
    assert {"drop", "merge:last:1", "int4"} <= applied and applied <= set(edits_of(teacher))
    assert ("single" in applied) == any(
        FAMILIES[name].can_single(stack.path) for stack in teacher.stacks
    )
    assert name not in CAN_SINGLE or "single" in applied
    scan = Scan(model, [parse_edit(edit, teacher) for edit in edits_of(teacher)])
    assert scan.expected_evaluations == cached.block_evaluations


def test_single_is_the_block_that_a_plan_would_make() -> None:
    model = family_model("qwenimage")
    teacher, [call] = models.describe_module(model), calls_of("qwenimage")
    rows = list(profile(model, teacher, [call], edits=["single"]))[-1].result.rows
    edit = parse_edit("single", teacher)
    for row in rows:
        stand_in = block_for(model, row.stack, edit.span(row.block))
        with torch.no_grad():
            reference = models.prediction(model(**call.kwargs))
            with forwards(
                [
                    (
                        model.transformer_blocks[row.block],
                        lambda old, new=stand_in: lambda *a, **k: new(*a, **k),
                    )
                ]
            ):
                changed = models.prediction(model(**call.kwargs))
        assert row.score == pytest.approx(
            relative_change(reference, changed).mean().item(), rel=1e-5
        )
    assert [row.block for row in rows] == [0, 1, 2, 3] and all(row.score > 0 for row in rows)


def test_the_last_block_of_sd3_cannot_be_single() -> None:
    model = family_model("sd3")
    rows = list(profile(model, models.describe_module(model), calls_of("sd3"), edits=["single"]))[
        -1
    ].result.rows
    assert [row.block for row in rows] == [0, 1, 2, 3]


def test_an_edit_that_applies_nowhere_is_refused() -> None:
    model = family_model("pixart")
    with pytest.raises(BadInput) as error:
        list(profile(model, models.describe_module(model), calls_of("pixart"), edits=["single"]))
    assert "single apply to no block" in error.value.found


def test_edited_blocks_of_a_large_teacher_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.models import block_cache

    model = family_model("qwenimage")
    whole = list(
        profile(
            model, models.describe_module(model), calls_of("qwenimage"), edits=["merge", "int4"]
        )
    )[-1].result
    block_cache.forget(model)
    monkeypatch.setattr(scan_module, "SMALL", 0)
    scan = Scan(
        model,
        [parse_edit(edit, models.describe_module(model)) for edit in ("merge", "int4")],
    )
    scores = prediction(scan, calls_of("qwenimage")[0])
    assert not scan.edited and not block_cache._CACHE.get(model)
    assert [sum(values) / 2 for values in scores.values()] == pytest.approx(
        [row.score for row in whole.rows]
    )


def test_a_student_of_mixed_blocks_is_profiled_too(tmp_path: Path) -> None:
    """Single blocks cannot become single again, parts that are gone cannot go, blocks of other
    shapes do not merge.
    """
    teacher = tiny_pipeline("qwenimage", tmp_path / "teacher")
    spans = [{"blocks": 0}, {"blocks": 1, "drop": ["text.mlp"]}, {"blocks": 2, "stream": "single"}]
    depth = models.describe(teacher, "x").stacks[0].depth
    spans += [{"blocks": b, "drop": ["attn"]} for b in range(3, depth)]
    Plan.parse(
        {"teacher": str(teacher), "family": "qwenimage", "stacks": {"transformer_blocks": spans}},
        "x",
    ).save(tmp_path / "plan.yaml")
    tasks.run(
        "build",
        {"plan": str(tmp_path / "plan.yaml"), "out": str(tmp_path / "student")},
        tmp_path / "ws",
        device="cpu",
    )
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    spec = {
        "teacher": str(tmp_path / "student"),
        "edits": ["drop", "merge", "single", "int4", "drop:text.mlp", "drop:attn"],
        "steps": 2,
        "prompts": str(tmp_path / "prompts.txt"),
        "timesteps": 1,
        "size": 32,
    }
    rows = SensitivityMap.load(
        tasks.run("profile", spec, tmp_path / "ws", device="cpu")["map"]
    ).rows
    blocks = {edit: [row.block for row in rows if row.edit == edit] for edit in spec["edits"]}
    rest = list(range(3, depth))
    assert blocks == {
        "drop": list(range(depth)),
        "merge": rest[:-1],
        "single": [0, 1, *rest],
        "int4": list(range(depth)),
        "drop:text.mlp": [0, *rest],
        "drop:attn": [0, 1, 2],
    }


@pytest.mark.parametrize("name", ["qwenimage", *PIPELINES])
def test_pipelines_go_through_info_and_profile(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_pipeline(name, tmp_path / "teacher")
    (tmp_path / "prompts.txt").write_text("a red circle\ntwo blue square\n")
    info = tasks.run("info", {"teacher": str(folder)}, tmp_path / "ws", device="cpu")
    assert info["family"] == name and [s["path"] for s in info["stacks"]] == [
        row.path for row in FAMILIES[name].stacks
    ]
    edits = edits_of(models.describe(folder, "x"))
    spec = {
        "teacher": str(folder),
        "edits": edits,
        "prompts": str(tmp_path / "prompts.txt"),
        "steps": 2,
        "timesteps": 1,
        "size": 32,
    }
    result = tasks.run("profile", spec, tmp_path / "ws", device="cpu")
    record = SensitivityMap.load(result["map"])
    assert set(record.edits) >= {"drop", "int4"} and (
        name not in CAN_SINGLE or "single" in record.edits
    )
    depth = {stack["path"]: stack["depth"] for stack in info["stacks"]}
    assert {
        path: sum(r.stack == path and r.edit == "drop" for r in record.rows) for path in depth
    } == depth
    assert all(row.score >= 0 for row in record.rows)
    page = shown(Store(tmp_path / "ws"), info["fingerprint"])
    drawn = page["spec"]["datasets"]
    assert list(dict.fromkeys(mark["stack"] for mark in page["value"]["plan"]["marks"])) == [
        s["path"] for s in info["stacks"]
    ]
    assert [mark["at"] for mark in page["value"]["plan"]["marks"]] == list(
        range(sum(depth.values()))
    )
    assert {cell["edit"] for cell in drawn["cells"]} == set(record.edits) and len(
        drawn["cells"]
    ) == len(record.rows)


def shown(store: Store, fingerprint: str) -> dict[str, Any]:
    """What the app's page sends to the browser for this teacher and its newest map."""
    with built_page(store) as page:
        for _, key in catalogue.teachers(store):
            if catalogue.teacher(store, key).fingerprint == fingerprint:
                out = page.on_teacher(PlanView(teacher=key))
    return {"value": out["heat"].value, **out["heat"].props}
