"""The notebook's widgets without a browser: what they take, show and refuse."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ui import synthetic
from workbench import lab
from workbench.lab.watching import Watcher
from workbench.records import BadInput
from workbench.workspace import jobs
from workbench.workspace.store import Store

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(12)
MAP = synthetic.sensitivity(TEACHER)


def test_the_editor_marks_changes_and_undoes():
    editor = lab.sensitivity(MAP, TEACHER)
    editor.select({PATH: [4, 5]})
    assert "4, 5" in editor.message.value and editor.hand.gain.disabled is False
    editor.mark("merge")
    assert editor.plan.depth() == {PATH: 11} and "92 % of the teacher" in editor.budget.value
    editor.change(drop=["mlp"])
    assert [box.value for box in editor.hand.parts.children if box.description == "mlp"] == [True]
    editor.undo()
    editor.undo()
    editor.undo()
    assert editor.plan.depth() == {PATH: 12}


def test_the_editor_changes_the_rank_of_modulation():
    editor = lab.sensitivity(MAP, TEACHER)
    control = editor.hand.modulation
    assert control.disabled, "nothing is selected"
    editor.select({PATH: [4, 5]})
    assert not control.disabled and control.value == "plan"
    before = editor.budget.value
    control.value = "8"
    assert [span.rank for span in editor.plan.stacks[PATH][3:7]] == [None, 8, 8, None]
    assert "memory and download, not milliseconds" in editor.budget.value != before
    editor.undo()
    assert editor.budget.value == before and control.value == "plan"
    of = synthetic.without_modulation()
    shared = lab.sensitivity(synthetic.sensitivity(of), of)
    shared.select({PATH: [1]})
    assert shared.hand.modulation.disabled
    assert "shared by all blocks" in shared.hand.no_modulation.value


def test_the_editor_drops_unused_parts_without_a_selection():
    editor = lab.sensitivity(MAP, TEACHER)
    assert editor.free.layout.display == ""
    editor.drop_unused()
    assert editor.free.layout.display == "none" and len(editor.history) == 2


def test_what_cannot_be_done_is_one_line_and_the_plan_stays():
    editor = lab.sensitivity(MAP, TEACHER)
    editor.mark("drop")
    assert "no block is selected" in editor.message.value
    editor.select({PATH: list(range(12))})
    editor.mark("drop")
    assert "#d1495b" in editor.message.value and len(editor.history) == 1


def test_charts_of_records_and_of_their_files(tmp_path: Path):
    map_file, teacher_file = tmp_path / "map.json", tmp_path / "teacher.json"
    MAP.save(map_file)
    TEACHER.save(teacher_file)
    assert len(lab.block(map_file, teacher_file, 3).children) >= 1
    assert lab.edits(MAP, TEACHER).chart is not None
    assert lab.difference(MAP, MAP, TEACHER, ("drop", "merge")).chart is not None
    assert lab.correlation(MAP, TEACHER, weighting={999.0: 1.0}).chart is not None
    assert "stable" in lab.stability(map_file)
    plan = lab.sensitivity(MAP, TEACHER).plan
    assert lab.picture(plan, TEACHER).chart is not None


def test_a_recovery_needs_spans_measured_before_and_after():
    measured = {"recoverability": synthetic.recoverability(TEACHER)}
    assert lab.recovery(measured, TEACHER, MAP, stage="warm start").chart is not None
    with pytest.raises(BadInput) as refused:
        lab.recovery({}, TEACHER)
    assert refused.value.found.startswith("no span")


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: lab.sensitivity(MAP, TEACHER, weighting="mine"), "mine"),
        (lambda: lab.sensitivity(MAP, TEACHER, edit="paint"), "paint"),
        (lambda: lab.correlation(synthetic.spans(TEACHER), TEACHER), "one ranking"),
    ],
)
def test_what_does_not_fit_is_refused(call, found: str):
    with pytest.raises(BadInput) as refused:
        call()
    assert found in refused.value.found


def test_a_finished_job_is_watched_to_its_result(tmp_path: Path):
    store = Store(tmp_path)
    job = synthetic.distilled(store, TEACHER)
    watcher = lab.watch(job)
    assert watcher.bar.value == 1.0 and "done" in watcher.head.value
    assert watcher.wait()["recoverability"]
    with pytest.raises(BadInput):
        lab.watch("none", tmp_path)


def test_a_watched_job_says_on_the_desktop_how_it_has_ended(tmp_path: Path):
    store = Store(tmp_path)
    title = "read 'it' </script>"
    job = jobs.submit(store, "info", {"teacher": "demo"}, title=title, start=False)

    async def watched() -> Watcher:
        watcher = lab.watch(job, every=0.01)
        await asyncio.sleep(0.05)
        assert watcher.notice.outputs == (), "it has not ended"
        with store.db() as db:
            db.execute("UPDATE job SET state = 'done'")
        await watcher.task
        return watcher

    with ThreadPoolExecutor(1) as thread:  # in this one a browser's loop may run
        [shown] = thread.submit(asyncio.run, watched()).result().notice.outputs
    script = shown["data"]["application/javascript"]
    assert f"new Notification({json.dumps(f'{title} (job {job.id}) is done')})" in script


def test_a_comparison_shows_every_model(tmp_path: Path):
    synthetic.comparison().save(tmp_path / "comparison.json")
    viewer = lab.compare(tmp_path)
    assert [box.children[0].value for box in viewer.pictures.children] == ["demo", "student-12"]
    viewer.at.value = 2
    assert "&lt;b&gt;" in viewer.caption.value


def test_a_pair_of_pictures_is_split_and_subtracted(tmp_path: Path):
    comparison = synthetic.comparison()
    first = np.zeros((6, 8, 3), np.uint8)
    other = np.full((6, 8, 3), 10, np.uint8)
    for model, pixels in zip(comparison.images, (first, other), strict=True):
        for file in comparison.images[model]:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / file)
    comparison.save(tmp_path / "comparison.json")
    viewer = lab.compare(tmp_path)
    assert viewer.line.layout.display == "none"

    def shown() -> np.ndarray:
        return np.asarray(Image.open(BytesIO(viewer.pictures.children[0].children[1].value)))

    viewer.view.value = "split"
    viewer.line.value = 25
    assert (shown()[:, :2] == 0).all() and (shown()[:, 2:] == 10).all()
    viewer.view.value = "difference"
    assert (shown() == 40).all()
    assert viewer.distance(0, viewer.models[1]) == 10
    file = tmp_path / comparison.images[viewer.models[1]][1]
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(file)
    assert viewer.worst()[0] == 1
    viewer.view.value = "grid"
    [grid] = viewer.pictures.children
    assert len(grid.children) == 2 + 2 * min(8, viewer.total)


def test_a_watched_job_is_steered(tmp_path: Path):
    store = Store(tmp_path)
    job = jobs.submit(store, "info", {"teacher": "demo"}, start=False)
    watcher = lab.watch(job)
    pressable = [name for name, button in watcher.buttons.items() if not button.disabled]
    assert pressable == ["pause", "cancel"]
    watcher.buttons["pause"].click()
    assert jobs.show(store, job.id).state == "paused"
    assert not watcher.buttons["resume"].disabled
    watcher.on_button("sample")
    assert "pictures now" in watcher.error.value
    picture = jobs.show(store, job.id).folder / "samples" / "step-4.png"
    Image.new("RGB", (8, 8)).save(picture)
    watcher.refresh()
    assert watcher.picture.children[0].value == "step-4"
    watcher.buttons["cancel"].click()
    assert jobs.show(store, job.id).state == "cancelled"
