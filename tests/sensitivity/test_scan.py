"""The cached scan against the naive one; partial results; what it costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import tiny_inputs, tiny_transformer
from tests.tiny_teacher import STACK, plan_of
from workbench import models, surgery
from workbench.models import Call, Pipeline, blocks
from workbench.records import BadInput, SensitivityMap, Teacher
from workbench.sensitivity import call_loop, changes
from workbench.sensitivity.partial import Partial, finished_calls
from workbench.sensitivity.profiling import naive_profile, profile
from workbench.sensitivity.scan import Scan
from workbench.sensitivity.scan_settings import Setting

EDITS = ("drop", "merge", "merge:first:1", "drop:text.mlp", "drop:attn", "drop:text.output")


def result(progress: Iterator) -> SensitivityMap:
    return list(progress)[-1].result


def random_calls(dtype: torch.dtype = torch.float32) -> list[Call]:
    return [
        Call(
            tiny_inputs(seed=seed, timestep=t / 1000, dtype=dtype),
            float(t),
            group=seed,
            samples=2,
            branch="cond",
        )
        for seed in (0, 1)
        for t in (900, 100)
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cached_equals_naive(dtype: torch.dtype, tolerance: float) -> None:
    model = tiny_transformer(depth=5).to(dtype)
    teacher = models.describe_module(model)
    cached = result(profile(model, teacher, random_calls(dtype), edits=EDITS))
    naive = result(naive_profile(model, teacher, random_calls(dtype), edits=EDITS))
    assert len(cached.rows) == len(naive.rows) == 2 * (5 + 4 + 4 + 5 + 5 + 1)
    for one, other in zip(cached.rows, naive.rows, strict=True):
        assert (one.block, one.edit, one.timestep) == (other.block, other.edit, other.timestep)
        assert one.score == pytest.approx(other.score, rel=tolerance, abs=1e-30)
        assert one.stderr == pytest.approx(other.stderr, rel=1e-4, abs=1e-12)
    assert (
        naive.block_evaluations
        == naive.naive_block_evaluations
        == cached.naive_block_evaluations
        > cached.block_evaluations
    )


@pytest.mark.parametrize(("depth", "most"), [(24, 0.56), (60, 0.52)])
@pytest.mark.parametrize("edits", [("drop",), ("drop", "merge")])
def test_half_the_work(depth: int, most: float, edits: tuple[str, ...]) -> None:
    model = tiny_transformer(depth=depth, heads=1, head_dim=8)
    call = Call(tiny_inputs(batch=1, grid=(1, 1)), 500.0, 0, 1, "cond")
    done = result(profile(model, models.describe_module(model), [call], edits=edits))
    assert done.block_evaluations / done.naive_block_evaluations <= most
    assert done.naive_block_evaluations == depth + depth * (depth - 1) + (
        (depth - 1) ** 2 if len(edits) > 1 else 0
    )


def test_scores_are_the_definition(teacher: Teacher, pipe: Pipeline, calls: list[Call]) -> None:
    """One drop and one merge score, from a student that surgery makes; mean and standard error by
    hand.
    """
    done = result(profile(pipe.transformer, teacher, calls, measured={"prompts": 3}))
    cond = [call for call in calls if call.branch == "cond" and call.timestep == 1000]
    kept = [{"blocks": b} for b in range(6)]
    drop = plan_of(*kept[:2], {"blocks": [2, 3], "init": "last"}, *kept[4:])
    merge = plan_of(*kept[:2], {"blocks": [2, 3], "init": "mean", "gain": 2}, *kept[4:])
    for edit, plan in (("drop", drop), ("merge", merge)):
        shares = []
        for call in cond:
            with torch.no_grad():
                v = pipe.transformer(**call.kwargs)[0]
                with surgery.applied(pipe, plan):
                    changed = pipe.transformer(**call.kwargs)[0]
            shares += [
                ((a - b).pow(2).sum() / a.pow(2).sum()).item()
                for a, b in zip(v, changed, strict=True)
            ]
        row = next(r for r in done.rows if r.edit == edit and r.block == 2 and r.timestep == 1000)
        sample = torch.tensor(shares)
        assert row.score == pytest.approx(sample.mean().item(), rel=1e-5)
        assert row.stderr == pytest.approx((sample.std() / 3**0.5).item(), rel=1e-4)
    assert (done.teacher, done.fingerprint, done.measured["prompts"], done.measured["samples"]) == (
        teacher.name,
        teacher.fingerprint,
        3,
        3,
    )
    assert len(done.timesteps) == 2 and all(row.score > 0 for row in done.rows)


def test_a_single_sample_has_no_standard_error() -> None:
    model = tiny_transformer(depth=2)
    call = Call(tiny_inputs(batch=1), 500.0, 0, 1, "cond")
    done = result(profile(model, models.describe_module(model), [call], edits=["drop"]))
    assert [row.stderr for row in done.rows] == [None, None]


def lines(partial: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in partial.read_text().splitlines() if line]


def test_a_stopped_scan_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_transformer(depth=4)
    teacher = models.describe_module(model)
    whole = result(profile(model, teacher, random_calls()))
    partial = tmp_path / "partial.json"
    setting = Setting(partial=partial)
    scan = profile(model, teacher, random_calls(), setting=setting)
    next(scan), next(scan), next(scan)  # the estimate, and two calls
    scan.close()
    assert len([line for line in lines(partial) if "call" in line]) == 2

    ran: list[float] = []
    real = call_loop.CallLoop.scored
    monkeypatch.setattr(
        call_loop.CallLoop,
        "scored",
        lambda self, call: (ran.append(call.timestep), real(self, call))[1],
    )
    resumed = result(profile(model, teacher, random_calls(), setting=setting))
    assert ran == [900.0, 100.0]
    assert resumed.rows == whole.rows
    assert resumed.block_evaluations == whole.block_evaluations
    assert resumed.measured["stability"] == whole.measured["stability"]

    ran.clear()
    result(profile(model, teacher, random_calls(), setting=setting, edits=["drop"]))
    assert len(ran) == 4  # other edits: not the same scan
    ran.clear()
    partial.write_text("{ half a file")
    other = teacher.model_copy(update={"fingerprint": "other"})
    result(profile(model, other, random_calls(), setting=setting))
    assert len(ran) == 4


def test_a_finished_call_is_appended_and_a_torn_line_costs_one_call(tmp_path: Path) -> None:
    """What is there is not written again: n calls are n lines, not n^2."""
    file = tmp_path / "partial"
    partial = Partial(file, "teacher", ["drop"])
    partial.put("a", {"scores": [1.0] * 1000})
    before = file.read_bytes()
    number = file.stat().st_ino
    partial.put("b", {"scores": [2.0]})
    assert file.stat().st_ino == number, "the same file, not a new one in its place"
    assert file.read_bytes()[: len(before)] == before
    assert len(file.read_bytes()) < len(before) + 100

    with open(file, "a") as torn:
        torn.write('\n{"call": "c", "resu')
    again = Partial(file, "teacher", ["drop"])
    assert again.get("a") == {"scores": [1.0] * 1000} and again.get("c") is None
    again.put("c", {"scores": [3.0]})
    read = Partial(file, "teacher", ["drop"])
    assert read.get("b") == {"scores": [2.0]} and read.get("c") == {"scores": [3.0]}
    assert finished_calls(file) == 3
    assert Partial(file, "another teacher", ["drop"]).get("a") is None


def test_progress(calls: list[Call], pipe: Pipeline, teacher: Teacher) -> None:
    steps = list(profile(pipe.transformer, teacher, calls, edits=["drop"]))
    assert [(p.step, p.total) for p in steps] == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), (4, 4)]
    assert steps[0].message.startswith("estimate: ")
    assert steps[1].message == "prompts 0, timestep 1000" and steps[1].metrics["timestep"] == 1000
    work = profile(pipe.transformer, teacher, iter(calls), edits=["drop"], setting=Setting(total=4))
    lazily = list(work)
    assert [p.total for p in lazily] == [4] * 6
    both = result(
        profile(pipe.transformer, teacher, calls, edits=["drop"], branches=("cond", "uncond"))
    )
    assert both.rows != steps[-1].result.rows


def test_a_prediction_that_is_not_finite_names_the_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_transformer(depth=3)
    call = Call(tiny_inputs(), 500.0, 0, 2, "cond")
    real = changes.block_for

    def poisoned(*args: Any) -> torch.nn.Module:
        block = real(*args)
        for parameter in block.parameters():
            parameter.data.fill_(float("inf"))
        return block

    def refused() -> str:
        with pytest.raises(BadInput) as error:
            result(profile(model, models.describe_module(model), [call]))
        assert error.value.found.endswith("at timestep 500")
        return error.value.found

    monkeypatch.setattr(changes, "block_for", poisoned)
    assert "with merge of transformer_blocks block 0 at" in refused()
    assert all("forward" not in vars(module) for module in model.modules())
    model.proj_out.bias.data[0] = float("nan")
    assert "with no edit, after the last block, at" in refused()
    model.transformer_blocks[1].img_mlp.net[2].bias.data[0] = float("nan")
    assert "with no edit, from transformer_blocks block 1 on, at" in refused()


def test_inputs_that_do_not_fit_are_refused_and_faults_of_ours_are_not_blamed_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_transformer(depth=2)
    scan = Scan(model)
    call = Call(tiny_inputs(), 500.0, 0, 2, "cond")
    wrong = replace(call, kwargs={**call.kwargs, "hidden_states": torch.zeros(2, 4, 3)})
    unknown = replace(call, kwargs={**call.kwargs, "colour": 1})
    for bad in (wrong, unknown):
        with pytest.raises(BadInput) as error:
            scan.reference(bad)
        assert "cannot run on these inputs" in error.value.found
        assert "QwenImageTransformer2DModel" in error.value.expected

    def broken(*args: Any) -> Any:
        raise TypeError("a fault of the workbench")

    monkeypatch.setattr(blocks, "streams_out", broken)
    with pytest.raises(TypeError, match="a fault of the workbench"):
        scan.reference(call)


@pytest.mark.parametrize(
    "edit",
    ["dropp", "merge:best", "merge:mean:zero", "merge:mean:-1", "drop:text.mpl", "single:x", ""],
)
def test_unknown_edits(teacher: Teacher, pipe: Pipeline, calls: list[Call], edit: str) -> None:
    with pytest.raises(BadInput) as error:
        result(profile(pipe.transformer, teacher, calls, edits=[edit]))
    assert error.value.found == f"edit {edit!r}" and error.value.do == "correct --edits"


def test_no_calls(teacher: Teacher, pipe: Pipeline, calls: list[Call]) -> None:
    with pytest.raises(BadInput) as error:
        result(profile(pipe.transformer, teacher, [replace(calls[0], branch="uncond")]))
    assert error.value.found == "no calls to measure on"


def test_the_model_is_untouched(pipe: Pipeline, teacher: Teacher, calls: list[Call]) -> None:
    before = {name: tensor.clone() for name, tensor in pipe.transformer.state_dict().items()}
    result(profile(pipe.transformer, teacher, calls[:1], edits=EDITS))
    assert all(
        torch.equal(before[name], tensor) for name, tensor in pipe.transformer.state_dict().items()
    )
    assert all("forward" not in vars(module) for module in pipe.transformer.modules())
    assert len(pipe.transformer.get_submodule(STACK)) == 6
