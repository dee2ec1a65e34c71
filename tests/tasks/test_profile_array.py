"""A scan as tasks of an array, one after the other, in any order: the map of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_qwen_pipeline
from workbench.records import Progress, SensitivityMap
from workbench.specs import ProfileSpec
from workbench.tasks.context import Context
from workbench.tasks.profile import profile
from workbench.tasks.profile_array import profile_part
from workbench.workspace.store import Store


def result_of(work) -> dict:
    last = Progress(step=0, total=0)
    for progress in work:
        last = progress
    return last.result


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_the_task_that_ends_last_makes_the_map_of_one_process(order: list[int], tmp_path: Path):
    teacher = str(tiny_qwen_pipeline(tmp_path / "teacher", depth=3))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(f"a picture of number {number}" for number in range(5)))
    how = {"teacher": teacher, "prompts": str(prompts), "timesteps": 2, "sampling_steps": 2}
    how |= {"size": 32, "batch": 1, "edits": "drop"}
    store = Store(tmp_path / "workspace")
    whole = result_of(
        profile(ProfileSpec.parse({**how, "out": str(tmp_path / "a")}), Context(store))
    )
    spec = ProfileSpec.parse({**how, "out": str(tmp_path / "b"), "processes": 3})
    results = []
    for number in order:
        folder = tmp_path / "shards" / str(number)
        folder.mkdir(parents=True)
        results.append(result_of(profile_part(spec, Context(store, folder=folder), number, 3)))
    assert results[:2] == [{"map": None}, {"map": None}]
    assert results[2]["processes"] == 3
    one, other = [SensitivityMap.load(tmp_path / name) for name in ("a", "b")]
    assert other.rows == one.rows
    assert other.measured == one.measured
    assert whole["block_evaluations"] == results[2]["block_evaluations"]
    assert not list(tmp_path.glob(".b*")), "nothing is left beside the map"
