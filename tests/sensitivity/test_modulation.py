"""Ranks of modulation in a map: as an edit of a scan, and as the metric that streams weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.refusals import refused
from tests.students.helpers import answer
from tests.tiny_families import family_inputs, family_model
from workbench import models, plans, surgery
from workbench.families import FAMILIES
from workbench.models import Call, conditioning
from workbench.models.blocks import bypass
from workbench.records import Modulation, Progress, SensitivityMap, Span
from workbench.sensitivity.edits import parse_edit, parse_edits
from workbench.sensitivity.modulation import measure, smallest_rank
from workbench.sensitivity.profiling import profile
from workbench.specs import ProfileSpec
from workbench.tasks.recorded_conditioning import recording

EDITS = ["modulation:rank=2", "modulation:rank=4"]


def written(name: str, folder: Path) -> Path:
    family_model(name).save_pretrained(folder)  # type: ignore[operator]
    return folder


def measured(folder: Path, edits: list[str], **more: object) -> SensitivityMap:
    teacher = models.describe(folder, "tiny")
    work = measure(folder, teacher, parse_edits(edits, teacher), **more)  # type: ignore[arg-type]
    return list(work)[-1].result


@pytest.mark.parametrize("name", ["qwenimage", "auraflow", "longcat", "hunyuanimage"])
def test_the_streamed_metric_is_that_of_the_factored_blocks(name: str, tmp_path: Path) -> None:
    """Against blocks made in memory, whose linears run on the vectors."""
    folder = written(name, tmp_path / "teacher")
    found = measured(folder, EDITS, timesteps=3)
    model = models.load_transformer(folder)
    vectors = conditioning.basis_of_module(model).vectors
    assert found.timesteps == [1000.0, 500.0, 0.0]
    for row in found.rows:
        stack = FAMILIES[name].stack(row.stack)
        rank = int(row.edit.rpartition("=")[2])
        span = Span(blocks=(row.block, row.block), modulation=Modulation(rank=rank))
        edited = models.block_cache.block_for(model, row.stack, span)
        own = model.get_submodule(row.stack)[row.block]
        x = vectors[int(row.timestep or 0)]
        lost = total = 0.0
        with torch.no_grad():
            for linear in stack.modulation:
                expected = own.get_submodule(linear)(x)
                lost += float((edited.get_submodule(linear)(x) - expected).square().sum())
                total += float(expected.square().sum())
        assert row.score == pytest.approx(lost / total, rel=1e-3, abs=1e-9), row
    blocks = sum(len(model.get_submodule(row.path)) for row in FAMILIES[name].stacks)
    assert len(found.rows) == blocks * 3 * len(EDITS)


def test_recorded_vectors_are_scored_together_and_pinned_blocks_left_out(tmp_path: Path) -> None:
    folder = written("sd3", tmp_path / "teacher")
    model = models.load_transformer(folder)
    with conditioning.seen_vectors(model) as seen:
        answer(model)
    file = conditioning.save_vectors(torch.cat(seen), tmp_path / "vectors.safetensors")
    found = measured(folder, ["modulation:rank=1"], vectors=file)
    assert [row.block for row in found.rows] == [0, 1, 2, 3] and found.timesteps == []
    assert max(row.score for row in found.rows) < 1e-9  # two vectors: one direction


def test_the_error_falls_with_the_rank(tmp_path: Path) -> None:
    found = measured(
        written("qwenimage", tmp_path / "teacher"), [f"modulation:rank={k}" for k in (2, 4, 8, 16)]
    )
    means = {}
    for edit in found.edits:
        scores = [row.score for row in found.rows if row.edit == edit]
        means[edit] = sum(scores) / len(scores)
    assert list(means.values()) == sorted(means.values(), reverse=True)
    bound = max(row.score for row in found.rows if row.edit == "modulation:rank=8")
    ranks = plans.smallest_ranks(found, bound)
    assert set(ranks.values()) <= {2, 4, 8} and len(ranks) == 4
    assert plans.smallest_ranks(found, 0.0) == {}


def test_in_a_scan_it_is_the_student_with_that_block_factored() -> None:
    model = family_model("qwenimage")
    teacher = models.describe_module(model)
    call = Call(family_inputs("qwenimage", timestep=0.7), 700.0, 0, 2, "cond")
    found = list(profile(model, teacher, [call], edits=["modulation:rank=2"]))[-1].result
    spans = [Span(blocks=(b, b)) for b in range(4)]
    spans[2] = Span(blocks=(2, 2), modulation=Modulation(rank=2))
    plan = plans.identity(teacher).model_copy(update={"stacks": {"transformer_blocks": spans}})
    with torch.no_grad():
        before = models.prediction(model(**call.kwargs), model)
        with surgery.applied(model, plan):
            after = models.prediction(model(**call.kwargs), model)
    change = (after - before).flatten(1).square().sum(1) / before.flatten(1).square().sum(1)
    [row] = [row for row in found.rows if row.block == 2]
    assert row.score == pytest.approx(float(change.mean()), rel=1e-4)


def test_a_scan_of_other_families_records_their_vectors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = family_model("sd3")
    out = tmp_path / "map.json"

    def work():  # type: ignore[no-untyped-def]
        for seed in range(8):
            with torch.no_grad(), bypass(model, [("transformer_blocks", 1)]):
                model(**family_inputs("sd3", seed=seed))
        yield Progress(step=1, total=1, result="map")

    assert [p.result for p in recording(work(), model, out)] == ["map"]
    vectors = conditioning.load_vectors(out.with_suffix(".conditioning.safetensors"))
    assert vectors.shape == (16, 32)
    assert "rank 8: " in capsys.readouterr().err


# --- what is asked for ----------------------------------------------------------------------------


def test_ranks_alone_are_measured_without_sampling() -> None:
    def metric(**data: object) -> str:
        spec = ProfileSpec.parse({"teacher": "demo", **data})
        assert ProfileSpec.parse(spec.to_data()) == spec
        return spec.metric

    assert metric(edits="modulation:rank=8") == "modulation"
    assert metric(edits=["modulation:rank=8", "modulation:rank=4"]) == "modulation"
    assert metric(edits="modulation:rank=8,drop") == "prediction"
    assert metric(edits="modulation:rank=8", metric="prediction") == "prediction"
    assert metric() == "prediction"


@pytest.mark.parametrize(
    "name", ["modulation", "modulation:8", "modulation:rank=0", "modulation:rank=x"]
)
def test_other_words_for_a_rank_are_refused(name: str) -> None:
    with refused(found=name):
        parse_edit(name, models.describe_module(family_model("qwenimage")))


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    shared = models.describe_module(family_model("zimage"))
    with refused(found="modulation:rank=2"):
        list(measure(tmp_path, shared, parse_edits(["modulation:rank=2"], shared)))
    qwen = models.describe_module(family_model("qwenimage"))
    with refused(found="drop"):
        list(measure(tmp_path, qwen, parse_edits(["drop"], qwen)))
    folder = written("sd3", tmp_path / "teacher")
    with refused(do="--conditioning"):
        measured(folder, ["modulation:rank=2"])


def test_the_smallest_rank_within_a_bound(tmp_path: Path) -> None:
    folder = written("qwenimage", tmp_path / "teacher")
    teacher = models.describe(folder, "tiny")
    found = measured(folder, ["modulation:rank=8"])
    means = [[row.score for row in found.rows if row.block == block] for block in range(4)]
    worst = max(sum(scores) / len(scores) for scores in means)
    assert smallest_rank(folder, teacher, worst * 1.001) == 8
    assert smallest_rank(folder, teacher, worst * 0.999) == 16
    with refused(found="up to 16"):
        smallest_rank(folder, teacher, 0.0)
