"""Where maps go that nobody named: one file per teacher and metric, and one per job at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.tiny import tiny_qwen_pipeline
from workbench.records import Progress, SensitivityMap
from workbench.specs import ProfileSpec
from workbench.tasks.context import Context
from workbench.tasks.profile import profile
from workbench.workspace import jobs
from workbench.workspace.store import Store


def work_of(store: Store, spec: ProfileSpec) -> tuple[str, Iterator[Progress]]:
    """A new job's id, and its work."""
    job = jobs.create(store, "profile", spec, "cpu")
    in_job = Store(store.workspace, job=job.id)
    return job.id, profile(spec, Context(in_job, folder=job.folder))


def map_of(work: Iterator[Progress]) -> Path:
    [*_, last] = work
    return Path(last.result["map"])


def test_two_profiles_at_once_write_two_maps_and_a_later_one_replaces_the_first(tmp_path: Path):
    store = Store(tmp_path / "workspace")
    teacher = str(tiny_qwen_pipeline(tmp_path / "teacher", depth=3))
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\n")
    how = {"teacher": teacher, "timesteps": 1, "sampling_steps": 2, "size": 32, "edits": "drop"}
    spec = ProfileSpec.parse({**how, "prompts": str(prompts)})
    one, work = work_of(store, spec)
    other, second_work = work_of(store, spec)
    assert next(work) and next(second_work), "both have begun, and neither has a map yet"
    first, second = map_of(work), map_of(second_work)
    assert (second.stem, second.parent) == (f"{first.stem}-2", first.parent)
    assert SensitivityMap.load(first).rows == SensitivityMap.load(second).rows
    for job in (one, other):
        jobs.cancel(store, job)
    _, third_work = work_of(store, spec)
    assert map_of(third_work) == first, "there is one map of a teacher and a metric"
