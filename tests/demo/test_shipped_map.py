"""The maps that ship with the bundled teachers: they belong to these weights, and measuring a part
again gives the same.
"""

from pathlib import Path

import pytest

import workbench.demo
from workbench import models, plans
from workbench.demo import teacher_folder
from workbench.records import SensitivityMap, Teacher
from workbench.sensitivity.profiling import profile

HERE = Path(workbench.demo.__file__).parent


@pytest.fixture
def shipped(request, tmp_path):
    suffix = request.param.removeprefix("demo")
    teacher = Teacher.load(HERE / f"teacher{suffix}.json")
    return (
        teacher_folder(request.param, tmp_path),
        teacher,
        SensitivityMap.load(HERE / f"sensitivity{suffix}.json"),
    )


@pytest.mark.parametrize("shipped", ["demo", "demo-12"], indirect=True)
def test_record_and_map_belong_to_the_bundled_weights(shipped):
    folder, teacher, record = shipped
    described = models.describe(folder, teacher.name)
    sampled = {"size": workbench.demo.SIZE, "text_tokens": workbench.demo.TEXT_TOKENS}
    assert described.model_copy(update=sampled) == teacher
    assert (record.teacher, record.fingerprint) == (teacher.name, teacher.fingerprint)
    depth = teacher.stacks[0].depth
    each = {"merge": depth - 1, "merge:first": depth - 1, "drop:text.output": 1}
    for edit in (
        "drop",
        "merge",
        "merge:first",
        "single",
        "int4",
        *(f"drop:{part}" for part in plans.family_of(teacher).stacks[0].parts),
    ):
        assert len([row for row in record.rows if row.edit == edit]) == each.get(edit, depth) * len(
            record.timesteps
        ), edit
    assert record.measured["stability"]["drop"]["stable"] and len(record.measured["prompts"]) == 20


@pytest.mark.parametrize("shipped", ["demo-12"], indirect=True)  # a quarter of the work of demo
def test_measuring_the_first_and_last_timestep_again_gives_the_shipped_scores(shipped):
    folder, teacher, record = shipped
    how = record.measured
    pipe = models.load_pipeline(folder)
    calls = models.trajectories(
        pipe,
        how["prompts"],
        seeds=[0] * len(how["prompts"]),
        steps=how["steps"],
        guidance=how["guidance"],
        size=how["size"],
        timesteps=2,
    )
    *_, last = profile(pipe.transformer, teacher, calls, edits=["drop"])
    shipped_scores = {
        (row.block, row.timestep): row.score for row in record.rows if row.edit == "drop"
    }
    for row in last.result.rows:
        assert row.score == pytest.approx(shipped_scores[row.block, row.timestep], rel=0.02)
