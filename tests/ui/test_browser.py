"""The app in a real browser: selection, marks, undo, reload, jobs over a restart, and that nothing
leaves the machine.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import plans
from workbench.plugins import load_plugin
from workbench.specs import parse_spec
from workbench.ui import draft
from workbench.workspace import chains, jobs
from workbench.workspace.store import Store

from . import synthetic
from .conftest import DEEP, TRAINED, App, fill
from .driving import (
    HOST,
    choose,
    clean,
    click,
    drag,
    drawn,
    fresh,
    painted,
    panel,
    picture,
    place,
    points,
    ready,
    says,
    until,
)

pytestmark = pytest.mark.browser


def test_click_drag_mark_undo_and_reload(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    says(tab, "#header", "synthetic")
    click(tab, 4)
    says(tab, "#chosen", "1 selected: 4")  # Python has it
    click(tab, 7, "Control")
    says(tab, "#chosen", "2 selected: 4, 7")
    tab.page.locator("#mark-drop").click()
    until(lambda: painted(tab)[4] == painted(tab)[7] == "drop")
    says(tab, "#budget", "of 24 blocks")
    says(tab, "#budget", "22")
    drag(tab, 10, 12)
    says(tab, "#chosen", "3 selected: 10-12")
    tab.page.keyboard.press("m")
    until(lambda: painted(tab)[10:13] == ["merge"] * 3)
    says(tab, "#yaml", "gain: 3")
    assert tab.page.locator(HOST).get_attribute("data-selected") == "10,11,12", (
        "the selection stays"
    )
    mounts = tab.page.locator(HOST).get_attribute("data-mounts")
    tab.page.keyboard.press("u")
    until(lambda: painted(tab)[10] == "keep")
    assert tab.page.locator(HOST).get_attribute("data-mounts") == mounts, (
        "marks are repainted, the map is not drawn again"
    )
    tab.reload()
    ready(tab)
    assert [at for at, mark in enumerate(painted(tab)) if mark != "keep"] == [4, 7]
    says(tab, "#budget", "22")
    clean(tab)


def test_bad_marks_say_one_line_and_lose_nothing(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    drag(tab, 0, 23)
    says(tab, "#chosen", "24 selected")
    tab.page.locator("#mark-drop").click()
    says(tab, "#heat .map-line", "is kept")
    assert set(painted(tab)) == {"keep"}
    assert len(tab.page.locator(HOST).get_attribute("data-selected").split(",")) == 24
    clean(tab)


def test_keyboard_alone_and_the_table(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    tab.page.locator(HOST).focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight"):
        tab.page.keyboard.press(key)
    says(tab, "#chosen", "2 selected: 1-2")
    tab.page.keyboard.press("m")
    until(lambda: painted(tab)[1:3] == ["merge", "merge"])
    tab.page.get_by_role("tab", name="Table").click()
    box = tab.page.locator("#boxes input[type=checkbox]")
    until(lambda: box.count() == 24 and box.nth(1).is_checked())
    box.nth(20).click()
    says(tab, "#chosen", "1-2, 20")
    assert "mean, gain 2" in tab.page.locator("#block-table").inner_text()
    clean(tab)


def test_propose_with_options_and_a_budget(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    choose(tab, "rule", "Amber-Image (arXiv")
    says(tab, "#rule-about", "timestep-weighted")
    assert (
        tab.page.locator("#rule-about a").get_attribute("href")
        == "https://arxiv.org/abs/2602.17047"
    )
    tab.page.locator("#propose").click()
    says(tab, "#yaml", "rule: amber")
    assert (
        len(tab.page.evaluate("document.querySelector('#heat .map-host').view.data('student')"))
        == 12
    )
    choose(tab, "budget-kind", "share of the parameters")
    before = place(tab, 4)
    tab.page.locator("#budget-limit textarea, #budget-limit input").first.fill("lots")
    tab.page.locator("#propose").click()
    says(tab, "#message", "budget params=lots")
    assert place(tab, 4) == before, "a message moves nothing under the pointer"
    tab.page.locator("#budget-limit textarea, #budget-limit input").first.fill("0.3")
    choose(tab, "option-gain", "length")
    tab.page.locator("#propose").click()
    until(
        lambda: (
            len(tab.page.evaluate("document.querySelector('#heat .map-host').view.data('student')"))
            < 10
        )
    )
    says(tab, "#yaml", "gain: ")
    clean(tab)


def test_edit_scale_and_weighting_change_without_a_new_drawing(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    mounts = tab.page.locator(HOST).get_attribute("data-mounts")
    host = "document.querySelector('#heat .map-host')"
    choose(tab, "edit", "merge")
    until(lambda: tab.page.locator(HOST).get_attribute("data-shown") == "merge log")
    tab.page.locator("#colour").get_by_text("linear").click()
    until(lambda: tab.page.locator(HOST).get_attribute("data-shown") == "merge linear")
    assert tab.page.evaluate(f"{host}.view.signal('edit')") == "merge"
    before = tab.page.evaluate(f"JSON.stringify({host}.view.data('bars'))")
    choose(tab, "weighting", "given weights")
    until(lambda: tab.page.evaluate(f"JSON.stringify({host}.view.data('bars'))") != before)
    tab.page.locator("#weights textarea, #weights input").first.fill("none")
    tab.page.locator("#weights textarea, #weights input").first.press("Enter")
    says(tab, "#message", "timestep=weight")
    assert tab.page.locator(HOST).get_attribute("data-mounts") == mounts
    clean(tab)


def test_by_hand_clicks_change_the_student_blocks_and_the_figures(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    assert not tab.page.locator("#hand-stream input").first.is_enabled(), "nothing is selected"
    drag(tab, 3, 5)
    says(tab, "#chosen", "3 selected")
    tab.page.locator("#mark-merge").click()
    says(tab, "#yaml", "gain: 3")
    before = tab.page.locator("#budget").inner_text()
    until(lambda: tab.page.locator("#hand-stream input").first.is_enabled())
    tab.page.locator("#hand-stream").get_by_text("single").click()
    says(tab, "#yaml", "stream: single")
    until(lambda: tab.page.locator("#budget").inner_text() != before)
    tab.page.locator("#hand-parts").get_by_text("mlp", exact=True).click()
    says(tab, "#yaml", "drop: [mlp]")
    tab.page.locator("#hand-init select").select_option("last")
    says(tab, "#yaml", "init: last")
    tab.page.locator("#free-cut").click()
    says(tab, "#yaml", "drop: [text.output]")
    until(lambda: not tab.page.locator("#free-cut").is_visible())
    tab.page.keyboard.press("u")
    until(lambda: tab.page.locator("#free-cut").is_visible())
    clean(tab)


def test_looking_closer_at_a_block_two_edits_and_the_plan(app: App, open_tab):
    """Long names, two stacks, several maps of different kinds: each panel draws, nothing breaks the
    width.
    """
    fresh(app)
    tab = open_tab(app.url, viewport={"width": 390, "height": 900})
    ready(tab)
    choose(tab, "teacher", "black-forest-labs")
    says(tab, "#header", "19 dual-stream blocks, 38 single-stream blocks")
    for option in ("imported", "spans", "full"):
        choose(tab, "map", option)
        says(
            tab,
            "#map-about",
            {
                "full": "More prompts are needed",
                "imported": "baseline 30.29",
                "spans": "1 - CKA",
            }[option],
        )
    tab.page.locator(HOST).focus()
    tab.page.keyboard.press("ArrowRight")
    says(tab, "#chosen", "1 selected: transformer_blocks 0")
    for name, figures in (
        ("Block", ("block-profile", "block-parts", "every-edit")),
        ("Compare maps", ("difference", "correlation")),
        ("Diagram", ("plan-picture",)),
    ):
        panel(tab, name)
        for figure in figures:
            drawn(tab, figure)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    says(tab, "#plan-difference", "No saved plan of this teacher yet")
    tab.page.locator("#plan-name textarea, #plan-name input").first.fill("closer")
    tab.page.locator("#save-plan").click()
    says(tab, "#launch-message", "Saved")
    panel(tab, "Propose")
    for slider, blocks in (("keep-n-0", 7), ("keep-n-1", 11)):
        tab.page.locator(f"#{slider} input[type=number]").fill(str(blocks))
        tab.page.locator(f"#{slider} input[type=number]").press("Tab")
    tab.page.locator("#propose").click()
    says(tab, "#budget", "7 + 11")
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 390
    clean(tab)


def test_a_preview_without_weights_says_why(app: App, open_tab):
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    tab.page.get_by_role("tab", name="Preview").click()
    tab.page.locator("#preview-run").click()
    says(tab, "#preview-message", "ession")
    until(lambda: tab.page.locator("#preview-message .wb-problem").count() == 1, 90)
    assert "synthetic" in tab.page.locator("#preview-message").inner_text()
    clean(tab)


def test_a_job_from_the_page_fails_with_its_reason(app: App, open_tab):
    """The synthetic teacher has no weights: the build is refused, and the page says why."""
    fresh(app)
    tab = open_tab(app.url)
    ready(tab)
    tab.page.locator("#build").click()
    says(tab, "#launch-message", "job 00")
    tab.page.get_by_role("tab", name="Jobs").click()
    says(tab, "#jobs", "failed", 90)
    says(tab, "#job-head", "synthetic", 10)
    assert tab.page.locator("#job-resume").is_enabled()
    clean(tab)


def test_jobs_outlive_reload_and_restart(tmp_path: Path, open_tab, monkeypatch: pytest.MonkeyPatch):
    """A job from elsewhere appears; its curve has no hole after a reload and after the app was
    killed; pause and resume work.

    An open page loads itself again once the app is back. A `goto` of ours beside it would be the
    second of two navigations, and one of them can wait for a load that the other took away.
    """
    load_plugin(Path(__file__).parents[1] / "workspace" / "kinds.py")  # the job's spec names it
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    app = App(fill(tmp_path, 24)).start()
    store = Store(tmp_path)
    try:
        tab = open_tab(app.url)
        tab.page.get_by_role("tab", name="Jobs").click()
        says(tab, "#jobs", "No jobs yet")
        assert not tab.page.locator("#job-pause").is_visible()
        picture(tab, "no-jobs.png")
        chain = chains.submit(store, [parse_spec("count", {})] * 2, start=False)[0].chain
        says(tab, "#jobs", "count > count")
        link = tab.page.locator("#jobs .job-row.link")
        until(lambda: link.count() == 2)  # the newest job is shown, a link of it
        for count in (0, 2):
            tab.page.locator(f"#jobs [data-job={chain}]").click()
            until(lambda count=count: link.count() == count)
        until(lambda: chains.find(store, chain).state == "done")
        job = jobs.submit(
            store, "count", {"steps": 3000, "pause": 0.05}, title="a job with a very long name " * 6
        )
        says(tab, "#jobs", "running")
        until(lambda: points(tab) > 20)
        tab.reload()
        tab.page.get_by_role("tab", name="Jobs").click()
        until(lambda: points(tab) > 20)
        tab.page.evaluate("window.older = true")
        app.kill()
        before = jobs.show(store, job.id).step
        until(lambda: jobs.show(store, job.id).step > before)
        app.start()
        tab.page.wait_for_function("!window.older")
        tab.page.get_by_role("tab", name="Jobs").click()
        until(lambda: points(tab) > before)
        tab.page.locator("#job-pause").click()
        says(tab, "#jobs", "paused", 30)
        tab.page.locator("#job-resume").click()
        until(lambda: jobs.show(store, job.id).state == "running", 30)
        tab.page.locator("#job-cancel").click()
        says(tab, "#jobs", "cancelled", 30)
        last = jobs.show(store, job.id).step
        until(lambda: points(tab) == last)
        steps = len(jobs.metrics(store, job.id)[0])
        assert steps == last, "no hole, no double"
        assert tab.outside == []
    finally:
        app.kill()
        for left in jobs.list_jobs(store, active=True):
            jobs.cancel(store, left.id)


def test_what_a_distillation_recovered_in_light_and_dark_and_its_map(app: App, open_tab):
    """Under a finished job, beside the map's scores; and a map of metric recovery on the first
    page.
    """
    fresh(app, TRAINED)
    title = "distill a student with a very long name " * 4
    synthetic.distilled(Store(app.workspace), TRAINED, title)
    for scheme, width in (("light", 1300), ("dark", 390)):
        size = {"width": width, "height": 900}
        tab = open_tab(app.url, color_scheme=scheme, viewport=size)
        ready(tab)
        choose(tab, "map", "recovery")
        says(tab, "#map-about", "recovery")
        choose(tab, "edit", "recovered")
        until(lambda tab=tab: tab.page.locator("#edit input").first.input_value() == "recovered")
        picture(tab, f"recovery-map-{scheme}.png", full_page=False)
        tab.page.get_by_role("tab", name="Jobs").click()
        drawn(tab, "recovery")
        says(tab, "#recovery-about", "how much the prediction changes")
        tab.page.locator("#recovery-panel").scroll_into_view_if_needed()
        picture(tab, f"recovery-job-{scheme}.png")
        choose(tab, "recovery-stage", "warm start")
        drawn(tab, "recovery")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        clean(tab)


def test_a_deep_teacher_a_narrow_window_and_the_dark(app: App, open_tab):
    """60 blocks answer; 390 px hold the page without a sideways scroll."""
    fresh(app, DEEP)
    tab = open_tab(app.url, color_scheme="dark")
    ready(tab)
    click(tab, 30)
    says(tab, "#chosen", "1 selected: 30")
    tab.page.locator("#mark-merge").click()
    until(lambda: painted(tab)[30] == "merge")
    picture(tab, "dark-60.png")
    narrow = open_tab(app.url, viewport={"width": 390, "height": 800})
    ready(narrow)
    assert narrow.page.evaluate("document.documentElement.scrollWidth") <= 390
    picture(narrow, "narrow-60.png")
    clean(tab), clean(narrow)
    assert plans.check(draft.load(app.workspace, DEEP).plan, DEEP)
