"""The pages "Jobs" and "Compare" without a browser."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from workbench import charts
from workbench.records import BadInput, Comparison
from workbench.specs import parse_spec
from workbench.ui import app, curve_stream, job_words, jobs_page, text
from workbench.ui.access import Access
from workbench.ui.address import Place
from workbench.ui.compare_form import CompareForm, ModelsForm
from workbench.ui.compare_page import ComparePage, FinishedForm, picture_file
from workbench.ui.cost_table import cost_table
from workbench.ui.jobs_page import JobsForm, JobsPage
from workbench.ui.live import LiveForm, LivePanel
from workbench.ui.recovery_panel import RecoveryForm, RecoveryPanel
from workbench.workspace import chains, job_control, jobs
from workbench.workspace.store import Store

from . import synthetic
from .conftest import ROOT

TEACHER = synthetic.teacher(24)


def test_no_event_marks_a_widget_that_holds_data_as_loading(tmp_path: Path):
    """Gradio's page would copy all properties of each, at every event."""
    for event in app.build(tmp_path).fns.values():
        assert [widget.elem_id for widget in event.show_progress_on] == ["progress"]


# --- jobs -----------------------------------------------------------------------------------------


def test_no_selector_has_a_comma_inside_brackets():
    """Gradio splits selectors at every comma: `:has(a, b)` becomes two rules that mean something
    else.
    """
    style = (ROOT / "workbench" / "ui" / "style.css").read_text()
    selectors = re.findall(r"(?:^|})([^{}]+){", style)
    assert len(selectors) > 50
    for selector in selectors:
        assert not re.search(r"\([^()]*,", selector), selector


def test_a_chain_is_one_row_with_its_links_behind_it(store: Store):
    spec = parse_spec("info", {"teacher": "demo"})
    first = jobs.submit(store, "info", spec, title="before", start=False)
    links = chains.submit(store, [spec, spec, spec], start=False)
    last = jobs.submit(store, "info", spec, title="after", start=False)
    with store.db() as db:
        db.execute("UPDATE job SET state = 'done' WHERE id = ?", (links[0].id,))
    rows = JobsPage(store).show(None, JobsForm())["jobs"]["jobs"]
    chain = links[0].chain
    assert [row["id"] for row in rows] == [first.id, chain, *[job.id for job in links], last.id]
    [head] = [row for row in rows if row.get("links")]
    assert (head["title"], head["state"]) == ("info > info > info", "queued")
    assert head["share"] == pytest.approx(1 / 3) and head["links"] == 3
    assert [row.get("of") for row in rows] == [None, None, chain, chain, chain, None]


def test_the_list_has_what_runs_then_the_queue_in_its_order_then_what_ended_last(store: Store):
    states = ("done", "failed", "running", "queued", "queued", "queued", "paused", "cancelled")
    made = [synthetic.job(store, state, title=str(at)) for at, state in enumerate(states)]
    with store.db() as db:
        db.execute("UPDATE job SET ended = created + 100 WHERE id = ?", (made[0].id,))
    jobs.move(store, made[5].id, 0)
    listed = jobs.list_jobs(store)
    running = [job.model_copy(update={"state": "running"}) for job in listed if job.title == "2"]
    listed = [job for job in listed if job.title != "2"] + running
    rows = job_words.list_rows(listed, 200)
    headings = dict.fromkeys(row["heading"] for row in rows)
    titles = {name: [row["title"] for row in rows if row["heading"] == name] for name in headings}
    assert titles == {
        "Running": ["2"],
        "Queue, the next one first": ["5", "3", "4"],
        "Paused": ["6"],
        "Ended, the newest first": ["0", "7", "1"],
    }
    assert list(titles) == list(job_words.HEADINGS)
    assert job_words.list_rows(listed, 3) == rows[:3]
    queued = [row["note"] for row in rows if row["state"] == "queued"]
    assert queued == [f"place {place} in the queue" for place in (1, 2, 3)]


def test_a_finished_distillation_says_its_steps_and_loss_in_the_list(store: Store):
    job = synthetic.job(store, "done")
    result = {"steps": 400, "last_loss": 0.0123456}
    (job.folder / "result.json").write_text(json.dumps(result))
    assert job_words.note(job).endswith(", took 0 s, 400 steps, loss 0.0123")
    assert job_words.note(synthetic.job(store, "done")).endswith(", took 0 s")


def test_numbers_are_written_as_a_person_reads_them():
    assert [text.milliseconds(ms) for ms in (84.23, 999.4, 1690.0, 123456.0, None)] == [
        "84.2 ms",
        "999 ms",
        "1.69 s",
        "123 s",
        "–",
    ]
    assert [text.figure(value) for value in (0.01234, 12.345, 1690.4, 98765.0)] == [
        "0.0123",
        "12.3",
        "1690",
        "98765",
    ]


def test_a_page_says_once_that_a_job_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    for kind in ("Info", "Warning"):
        monkeypatch.setattr(gr, kind, lambda text, kind=kind: said.append(f"{kind}: {text}"))
    page = JobsPage(store)
    job = jobs.submit(store, "info", {"teacher": "demo"}, title="read <demo>", start=False)
    before = page.show(None, JobsForm())["jobs"]
    with store.db() as db:
        db.execute("UPDATE job SET state = 'failed', error = 'no\nlog'")
    after = page.on_tick(JobsForm(jobs=before))["jobs"]
    page.on_tick(JobsForm(jobs=after))
    assert said == [f"Warning: read &lt;demo&gt; (job {job.id}) is failed: no"]


def test_forged_questions_for_points_get_none(store: Store):
    for question in (None, {}, {"job": "../..", "after": 0}, {"job": 5, "after": "x"}):
        assert curve_stream.points_after(store, question)["rows"] == []
    look = {"log": True, "x": "step", "smoothing": 5}
    for series in (None, "ab", [["loss"]], [1], [["loss", "loss", "loss"]]):
        assert curve_stream.drawing({**look, "series": series})["spec"] is None


def test_the_rows_of_a_resumed_run_replace_those_behind_its_checkpoint(store: Store):
    """A page that reads on from its cursor is sent what a page that opens now is sent."""
    job = synthetic.job(store, "running", synthetic.metrics(30))
    first = curve_stream.points_after(store, {"job": job.id, "after": 0})
    synthetic.write_metrics(job, synthetic.metrics(5, first=20), attempt=2)
    then = curve_stream.points_after(store, {"job": job.id, "after": first["after"]})
    assert first["restart"] and not then["restart"]
    kept = [row for row in first["rows"] if row["step"] < then["rows"][0]["step"]]
    at_once = curve_stream.points_after(store, {"job": job.id, "after": 0})
    assert kept + then["rows"] == at_once["rows"]
    assert [row["step"] for row in at_once["rows"]] == list(range(1, 25))


def test_the_newest_job_is_shown_and_a_tick_sends_what_changed(store: Store):
    page = JobsPage(store)
    assert "No job is selected" in page.on_address(Place(), JobsForm())["head"]
    job = synthetic.distilled(store, TEACHER)
    changes = page.on_address(Place(), JobsForm(remembered="gone"))
    assert changes["curve"] == {"job": job.id} and "done" in changes["head"]
    later = page.on_tick(JobsForm(jobs=changes["jobs"], log=changes["log"]))
    assert "jobs" not in later and "log" not in later and "curve" not in later
    assert page.on_select(JobsForm(jobs=changes["jobs"]))["remembered"] == job.id


def test_a_job_is_queued_again_with_changes(store: Store):
    page = JobsPage(store)
    job = jobs.submit(store, "info", {"teacher": "demo"}, title="read demo", start=False)
    again = page.copier(job_control.duplicate)
    form = JobsForm(jobs={"jobs": [], "selected": job.id}, changes="teacher=demo-12\n\n")
    shown = again(form)
    copy = jobs.show(store, shown["curve"]["job"])
    assert (copy.spec["teacher"], copy.title, copy.state) == ("demo-12", "read demo", "queued")
    wrong = again(replace(form, changes="teacher"))
    assert "FIELD=VALUE" in wrong["message"] and wrong["curve"]["job"] == job.id
    assert len(jobs.list_jobs(store)) == 2


def test_buttons_are_those_that_make_sense(store: Store):
    queued = [jobs.submit(store, "info", {"teacher": "demo"}, start=False) for _ in range(2)]
    states = jobs_page.button_states(queued[0])
    enabled = {name for name, button in states.items() if button.interactive}
    assert enabled == {"pause", "cancel", "down", "duplicate"}
    running = queued[1].model_copy(update={"kind": "distill", "state": "running"})
    states = jobs_page.button_states(running)
    enabled = {name for name, button in states.items() if button.interactive}
    assert enabled == {"pause", "cancel", "save", "sample", "duplicate"}
    done = queued[1].model_copy(update={"kind": "distill", "state": "done"})
    assert jobs_page.button_states(done)["continue"].interactive
    down = jobs_page.move_by(store, queued[0].id, 1)
    assert down.place == 1


def test_a_finished_distillation_shows_what_it_recovered(store: Store):
    with gr.Blocks():
        panel = RecoveryPanel(store)
        panel.build()
    job = synthetic.distilled(store, TEACHER)
    changes = panel.on_job(RecoveryForm({"selected": job.id}))
    stages = charts.stages(synthetic.recoverability(TEACHER))
    assert changes["box"].visible and changes["stage"].value == stages[-1]
    assert len(changes["stage"].choices) == 2
    assert len(changes["figure"].props["spec"]["vconcat"]) == 2 and "dropped" in changes["about"]
    again = panel.on_job(RecoveryForm({"selected": job.id}, "warm start"))
    assert again["stage"].value == "warm start"
    assert again["figure"].props["spec"] != changes["figure"].props["spec"]
    for value in (None, {"selected": "7"}, {"selected": [1]}):
        assert panel.on_job(RecoveryForm(value))["box"].visible is False
    (store.workspace / "teachers" / "synthetic.json").unlink()
    changes = panel.on_job(RecoveryForm({"selected": job.id}))
    assert "not in the workspace" in changes["about"]


# --- comparisons ----------------------------------------------------------------------------------


def with_pictures(store: Store) -> Comparison:
    record = synthetic.comparison()
    folder = store.workspace / "comparisons" / "one"
    for model, files in record.images.items():
        for number, file in enumerate(files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            colour = (40 * number, 80, 200 if model == "demo" else 90)
            Image.new("RGB", (96, 96), colour).save(folder / file)
    record.save(folder / "comparison.json")
    return record


def test_a_comparison_shows_the_same_prompt_and_seed_on_both_sides(store: Store):
    with_pictures(store)
    page = ComparePage(store)
    form = FinishedForm(str(store.workspace / "comparisons" / "one"), "demo", "student-12", 2)
    changes = page.on_next(form)
    names = [Path(path).name for path in changes["slider"]]
    assert names == ["demo-3.png", "student-12-3.png"] and changes["at"] == 3
    assert "seed 1" in changes["caption"] and "&lt;b&gt;" in changes["caption"]
    assert len(changes["grid"]) == 4
    last = FinishedForm(form.comparison, "demo", "student-12", 3)
    assert page.on_next(last)["at"] == 0, "the first follows the last"
    assert page.picture(FinishedForm("/etc", "demo", "x"))["slider"] is None


def test_new_comparisons_enter_the_list(store: Store):
    page = ComparePage(store)
    empty = page.on_tick(FinishedForm())
    assert "No finished comparison yet" in empty["message"]
    assert empty["report"].interactive is False
    with_pictures(store)
    changes = page.on_tick(FinishedForm(listed=empty["listed"]))
    assert changes["report"].interactive
    assert changes["left"].value == "demo" and "one" in changes["comparison"].choices[0][0]
    same = FinishedForm(changes["comparison"].value, listed=changes["listed"])
    assert page.on_tick(same) == {}


def test_the_drawing_of_students_takes_in_other_comparisons_of_the_same_prompts(store: Store):
    record = with_pictures(store)
    page = ComparePage(store)
    one = store.workspace / "comparisons" / "one"
    assert page.others(record) == []
    smaller = record.models[1].model_copy(
        update={"name": "small", "parameters": 10**6, "source": "s"}
    )
    other = record.model_copy(update={"models": [record.models[0], smaller]})
    other.save(one.with_name("two") / "comparison.json")
    different = other.model_copy(update={"seeds": [5, 6]})
    different.save(one.with_name("three") / "comparison.json")
    assert page.others(record) == [other]
    drawn = page.on_choose(FinishedForm(str(one)))["students"].props["spec"]
    assert "small" in str(drawn) and "student-12" in str(drawn)


def test_a_report_of_a_comparison_and_others_of_its_prompts_is_written_into_the_workspace(
    store: Store,
):
    record = with_pictures(store)
    one = store.workspace / "comparisons" / "one"
    small = record.models[1].model_copy(update={"name": "small"})
    other = record.model_copy(update={"models": [record.models[0], small]})
    other.save(one.with_name("two") / "comparison.json")
    message = ComparePage(store).on_report(FinishedForm(str(one)))["message"]
    page = store.workspace / "reports" / "one.html"
    assert "2 comparisons" in message and str(page) in message
    for written in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "student-12" in written and "small" in written
    with pytest.raises(BadInput):
        ComparePage(store).on_report(FinishedForm("/etc"))
    with pytest.raises(BadInput):
        ComparePage(store, Access(store, read_only=True)).on_report(FinishedForm(str(one)))


def test_pictures_outside_the_comparison_are_not_shown(store: Store):
    record = with_pictures(store)
    folder = store.workspace / "comparisons" / "one"
    data = json.loads((folder / "comparison.json").read_text())
    data["images"]["demo"] = ["../../../secret.png"] * 4
    assert picture_file(folder, record.model_validate(data), "demo", 0) is None


def test_pictures_of_a_comparison_outside_the_workspace_are_shown_by_their_pixels(
    store: Store, tmp_path: Path
):
    with_pictures(store)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(store.workspace / "comparisons" / "one", elsewhere)
    store.add("comparison", elsewhere)
    changes = ComparePage(store).picture(FinishedForm(str(elsewhere), "demo", "student-12", 0))
    left, _ = changes["slider"]
    with Image.open(elsewhere / "images" / "demo-0.png") as picture:
        assert left.tobytes() == picture.convert("RGB").tobytes()
    assert len(changes["grid"]) == 4


def test_a_new_comparison_takes_models_of_the_list(store: Store):
    form = CompareForm(store)
    line = form.on_fields(ModelsForm(["demo", "/a student"]), form.spec_form.filled())["command"]
    assert "compare demo '/a student' -o" in line and "--seeds 2" in line
    for models in (None, ["demo"], ["demo", "/etc"]):
        with pytest.raises(BadInput) as refused:
            form.on_run(ModelsForm(models), form.spec_form.filled())
        assert "models" in refused.value.found


def test_a_live_prompt_needs_two_models_and_a_guidance(store: Store):
    panel = LivePanel(store)
    with pytest.raises(BadInput):
        panel.on_run(LiveForm(left="demo", right="/etc", prompt="a star"))
    with pytest.raises(BadInput) as refused:
        panel.on_run(LiveForm(left="demo", right="demo", prompt="a star", guidance=101))
    assert refused.value.found == "guidance 101"


def test_the_cost_table_escapes_names():
    comparison = synthetic.comparison()
    evil = comparison.models[0].model_copy(update={"name": "<img src=x>"})
    changed = comparison.model_copy(update={"models": [evil, comparison.models[1]]})
    assert "<img" not in cost_table(changed)


def test_gradios_queue_has_the_figures_that_let_it_rest():
    with gr.Blocks() as demo:
        pass
    app.rest_when_idle(demo)
    source = inspect.getsource(type(demo._queue))
    assert demo._queue.sleep_when_free == 0.02 and "sleep(self.sleep_when_free)" in source
    assert "sleep(self.progress_update_sleep_when_free)" in source
