"""The app without a browser: drafts on disk, handlers, and what they refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from html import escape
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench import charts, plans, rules
from workbench.charts.view import GIVEN
from workbench.records import BadInput, Comparison
from workbench.ui import catalogue, draft, preview_panel, rules_panel
from workbench.ui.compare_page import ComparePage, cost_table
from workbench.ui.jobs_page import JobsPage
from workbench.ui.launch_panel import LaunchPanel, safe_name, whole
from workbench.ui.plan_page import PlanPage
from workbench.ui.recovery_panel import RecoveryPanel
from workbench.workspace.jobs import list_jobs
from workbench.workspace.store import Store

from . import synthetic
from .conftest import ROOT, fill

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(24)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    fill(tmp_path, 24)
    return store


def key(store: Store) -> str:
    return next(value for label, value in catalogue.teachers(store) if label == "synthetic")


def test_the_app_opens_without_torch():
    code = "import sys, workbench.ui; print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert out.stdout.strip() == "[]"


# --- drafts ---------------------------------------------------------------------------------------


def test_a_draft_lives_on_disk_with_its_history(tmp_path: Path):
    plan = plans.identity(TEACHER)
    small = plan.model_copy(update={"origin": {"rule": "by hand"}})
    first = draft.change(tmp_path, TEACHER, 0, lambda d: d.to(small))
    assert (first.version, draft.load(tmp_path, TEACHER).plan) == (1, small)
    back = draft.change(tmp_path, TEACHER, 1, draft.Draft.back)
    assert back.plan.stacks == plan.stacks
    assert draft.change(tmp_path, TEACHER, 2, draft.Draft.forth).plan.origin == {"rule": "by hand"}
    assert draft.latest(tmp_path) == "synthetic"


def test_a_stale_change_is_refused_and_changes_nothing(tmp_path: Path):
    draft.change(tmp_path, TEACHER, 0, lambda d: d.to(d.plan))
    with pytest.raises(draft.Stale, match="another window"):
        draft.change(tmp_path, TEACHER, 0, lambda d: d.to(plans.identity(TEACHER)))
    assert draft.load(tmp_path, TEACHER).version == 1


def test_a_damaged_draft_gives_the_identity(tmp_path: Path):
    path = draft.path_of(tmp_path, TEACHER)
    path.parent.mkdir()
    path.write_text("{")
    assert draft.load(tmp_path, TEACHER).plan == plans.identity(TEACHER)


# --- handlers -------------------------------------------------------------------------------------

SIGHT = (None, "normalised", "")  # map, weighting, given weights


@pytest.fixture
def page(store: Store):
    """The page with its widgets, outside a served app."""
    import gradio as gr

    with gr.Blocks():
        made = PlanPage(store)
        made.build()
        yield made


def options(**given: object) -> list[object]:
    """The fields of the rules' form as the browser sends them: untouched but for those given."""
    fresh = {
        name: option.default
        if option.kind in ("bool", "int") and option.default is not None
        else ""
        for name, option in rules.OPTIONS.items()
    }
    return list((fresh | given).values())


def test_marks_change_the_plan_on_disk_and_bad_ones_say_one_line(store: Store, page: PlanPage):
    heat = {"version": 0, "selected": [4, 5], "plan": None}
    out = page.marker("drop")(heat, key(store), *SIGHT)
    assert out["heat"]["version"] == 1 and [m["mark"] for m in out["heat"]["plan"]["marks"]][
        3:6
    ] == ["keep", "drop", "drop"]
    assert "22" in out["budget"] and "blocks: [3, 5]" in out["yaml"] and out["message"] == ""
    everything = {"version": 1, "selected": list(range(24))}
    out = page.marker("drop")(everything, key(store), *SIGHT)
    assert "at least one kept block" in out["message"] and out["heat"]["version"] == 1
    assert out["heat"]["selected"] == list(range(24))
    assert "another window" in page.marker("keep")(heat, key(store), *SIGHT)["message"]


@pytest.mark.parametrize(
    "heat",
    [
        None,
        [],
        "x",
        {"selected": "all"},
        {"version": "0", "selected": [-1, 99, "4", 1.5, True, [1]]},
    ],
)
def test_forged_values_change_nothing(store: Store, page: PlanPage, heat):
    for how in (
        page.marker("drop"),
        lambda *at: page.hand.on_stream("single", *at),
        lambda *at: page.hand.on_parts(["mlp"], *at),
    ):
        out = how(heat, key(store), *SIGHT)
        assert "window" in out["message"] or "no block is selected" in out["message"]
    assert not draft.path_of(store.workspace, TEACHER).exists()


def test_by_hand_every_control_changes_the_selected_student_blocks(store: Store, page: PlanPage):
    def now(handler, *value: object):
        version = draft.load(store.workspace, TEACHER).version
        return handler(*value, {"version": version, "selected": [4, 5]}, key(store), *SIGHT)

    now(page.marker("merge"))
    now(page.hand.on_stream, "single")
    now(page.hand.on_init, "last")
    now(page.hand.on_gain, "1.5")
    out = now(page.hand.on_parts, ["mlp", "attn"])
    assert (
        "{blocks: [4, 5], init: last, gain: 1.5, stream: single, drop: [mlp, attn]}" in out["yaml"]
    )
    assert (
        out["parts"].value == ["mlp", "attn"]
        and out["stream"].value == "single"
        and out["message"] == ""
    )
    out = now(page.hand.on_parts, ["attn"])
    assert "drop: [attn]}" in out["yaml"]
    assert (
        "parts" not in now(page.hand.on_gain, "")
        and "positive number" in now(page.hand.on_gain, "lots")["message"]
    )
    assert out["free"].visible and "text.output of block 22" in out["free"].value
    before = out["budget"]
    out = now(page.hand.on_free)
    assert (
        out["free"].visible is False
        and out["budget"] != before
        and "drop: [text.output]" in out["yaml"]
    )


def test_an_unknown_teacher_map_or_weighting_is_refused(store: Store, page: PlanPage):
    with pytest.raises(BadInput):
        catalogue.teacher(store, "/etc/passwd")
    assert catalogue.sensitivity(store, TEACHER, "/etc/passwd") is None
    for weighting, given, said in (("mine", "", "weighting 'mine'"), (GIVEN, "x", "weight 'x'")):
        assert (
            said.replace("'", "&#x27;")
            in page.on_weighting({}, key(store), None, "drop", "log", weighting, given)["message"]
        )


def propose(
    page: PlanPage,
    store: Store,
    rule: str,
    kind: str = "keep",
    limit: str = "",
    chosen: str | None = None,
    **given: object,
):
    at = {"version": draft.load(store.workspace, TEACHER).version}
    return page.rules.on_propose(
        at, key(store), chosen, "high-noise", "", rule, kind, limit, 12, 1, *options(**given)
    )


def test_a_proposal_becomes_the_draft(store: Store, page: PlanPage):
    chosen = catalogue.maps(store, TEACHER)[0][1]
    out = propose(page, store, "amber", chosen=chosen, init="mean", gain="length")
    assert len(out["heat"]["plan"]["student"]) == 12 and "predicted error" in out["budget"]
    assert propose(page, store, "amber")["message"] == "", (
        "another map of this teacher serves, where none is on screen"
    )
    Path(chosen).unlink()
    assert "needs a sensitivity map" in propose(page, store, "amber")["message"]
    out = propose(page, store, "uniform", "params", "0.4")
    info = plans.plan_info(draft.load(store.workspace, TEACHER).plan, TEACHER)
    assert out["message"] == "" and 0.3 < info.ratio <= 0.4


@pytest.mark.parametrize(
    ("kind", "limit", "given", "said"),
    [
        ("params", "2", {}, "budget params=2"),
        ("bytes", "many", {}, "budget bytes=many"),
        ("wishes", "1", {}, "budget "),
        ("keep", "", {"protect": "1;2"}, "protected blocks"),
        ("keep", "", {"gain": "-3"}, "gain "),
        ("keep", "", {"init": "best"}, "Start from"),
        ("keep", "", {"single_from": "x"}, "Single-stream from"),
    ],
)
def test_what_the_form_cannot_mean_is_one_line_and_changes_nothing(
    store: Store, page: PlanPage, kind, limit, given, said
):
    out = propose(page, store, "uniform", kind, limit, **given)
    assert said in out["message"] and "wb-problem" in out["message"]
    assert draft.load(store.workspace, TEACHER).version == 0


def test_the_form_shows_every_rule_with_its_options_and_paper(page: PlanPage):
    assert [value for _, value in page.rules.rule.choices] == list(rules.RULES)
    for name, row in rules.RULES.items():
        about, *fields = page.rules.on_rule(name)
        assert escape(row.title) in about and (not row.link or f'href="{row.link}"' in about)
        assert {
            option for option, field in zip(rules.OPTIONS, fields, strict=True) if field.visible
        } == set(row.options)
    assert all(field.info for field in page.rules.options.values()), "every option is explained"


def test_a_rule_that_measures_runs_as_a_job(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    measured = next((name for name, row in rules.RULES.items() if row.measures), None)
    if measured is None:
        pytest.skip("no rule measures yet")
    asked = {}
    monkeypatch.setattr(
        rules_panel.jobs,
        "submit",
        lambda store, kind, spec, title: (
            asked.update(kind=kind, **spec) or SimpleNamespace(id="7", state="queued", title=title)
        ),
    )
    out = propose(page, store, measured, "params", "0.5", minutes="2", protect="0, 1")
    assert "job 7 is queued" in out["message"] and asked["kind"] == "plan"
    assert (
        asked["rule"] == measured and asked["budget"] == "params=0.5" and asked["protect"] == [0, 1]
    )
    assert asked["out"].startswith(str(store.workspace / "plans"))


def test_a_slider_for_each_stack(tmp_path: Path):
    import gradio as gr

    flux = synthetic.flux(6, 4)
    flux.save(tmp_path / "teachers" / "flux.json")
    store = Store(tmp_path)
    with gr.Blocks():
        page = PlanPage(store)
        page.build()
        name = next(value for label, value in catalogue.teachers(store) if label == flux.name)
        out = page.on_teacher(name, None, "drop", "log", "normalised", "")
        assert [(out[f"keep{n}"].maximum, out[f"keep{n}"].visible) for n in range(2)] == [
            (6, True),
            (4, True),
        ]
        page.rules.on_propose({"version": 0}, name, *SIGHT, "uniform", "keep", "", 3, 2, *options())
    assert draft.load(tmp_path, flux).plan.depth() == {PATH: 3, "single_transformer_blocks": 2}


def test_edit_and_scale_change_without_a_new_drawing_and_the_weighting_changes_the_bars_alone(
    store: Store, page: PlanPage
):
    chosen = catalogue.maps(store, TEACHER)[0][1]
    switch = page.on_switch("merge", "linear")["heat"]
    assert (
        switch.props["shown"] == {"edit": "merge", "colour": "linear"}
        and "spec" not in switch.props
    )
    out = page.on_weighting(
        {"selected": [3]}, key(store), chosen, "drop", "log", GIVEN, "1000=1, 0=0"
    )
    assert out["given"].visible and "spec" not in out["heat"].props
    want = plans.block_scores(
        catalogue.sensitivity(store, TEACHER, chosen),
        "drop",
        dict.fromkeys([999.0], 1.0) | {t: t / 1000 for t in synthetic.TIMES},
    )
    bars = {
        row["at"]: row["score"]
        for row in out["heat"].props["measures"]["bars"]
        if row["edit"] == "drop"
    }
    assert bars[3] == pytest.approx(want[(PATH, 3)], rel=1e-4)


def test_the_answer_to_another_map_leaves_the_edit_and_the_scale_alone_where_they_still_suit(
    store: Store, page: PlanPage
):
    """A choice made while the answer is on its way must stay."""
    chosen = catalogue.maps(store, TEACHER)[0][1]
    same = page.on_map(key(store), chosen, "merge", "log", "normalised", "")
    assert "colour" not in same and "value" not in same["edit"].constructor_args
    assert same["heat"].props["shown"] == {"edit": "merge", "colour": "log"}
    other = page.on_map(key(store), chosen, "gone", "linear", "normalised", "")
    assert other["colour"] == "log" and other["edit"].constructor_args["value"] == "drop"


def test_a_saved_plan_opens_and_its_difference_is_told(store: Store, page: PlanPage):
    assert "No plan of this teacher is saved yet" in page.picture.on_compare(key(store), None)
    LaunchPanel(store, page).on_save(key(store), "first")
    saved = catalogue.plans(store, TEACHER)[0][1]
    assert "The plan is the saved one" in page.picture.on_compare(key(store), saved)
    page.marker("drop")({"version": 0, "selected": [4]}, key(store), *SIGHT)
    assert "Different from the saved plan" in page.picture.on_compare(key(store), saved)
    out = page.picture.on_open({"version": 1}, key(store), *SIGHT, saved)
    assert len(out["heat"]["plan"]["student"]) == 24
    assert (
        "one of the list"
        in page.picture.on_open({"version": 2}, key(store), *SIGHT, "/etc/passwd")["message"]
    )


def test_a_preview_asks_the_session_and_says_what_it_is_at(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    asked = {}
    monkeypatch.setattr(
        preview_panel.requests,
        "request",
        lambda store, kind, spec: asked.update(kind=kind, **spec) or 5,
    )
    ticket, *_ = page.preview.on_go(None, key(store), "a star", 3, 0)
    assert (
        ticket[0] == 5
        and asked["kind"] == "preview"
        and asked["prompts"] == ["a star"]
        and asked["seeds"] == [3]
    )
    answers = {"state": "running", "error": "", "result": {"message": "loading the teacher"}}
    monkeypatch.setattr(preview_panel.requests, "result", lambda store, number: answers)
    assert "loading the teacher" in page.preview.on_tick(ticket)[2]
    answers |= {"state": "failed", "error": "no such folder"}
    assert "no such folder" in page.preview.on_tick(ticket)[2]
    assert "seed" in page.preview.on_go(None, key(store), "a star", 1.5, 0)[2]


def test_a_tick_before_the_first_paint_shows_the_teacher_worked_on_last(
    store: Store, page: PlanPage
):
    draft.change(store.workspace, TEACHER, 0, lambda begun: begun)
    seen = (None, None, "drop", "log", "normalised", "")
    for out in (page.on_load(*seen), page.on_tick("", None, *seen)):
        assert out["teacher"].value == key(store)


def test_looking_closer_says_what_is_missing(store: Store, page: PlanPage):
    assert (
        "no sensitivity map"
        in page.block.on_select({"selected": [3]}, key(store), *SIGHT, "log")[0]
    )
    chosen = catalogue.maps(store, TEACHER)[0][1]
    sight = (key(store), chosen, "normalised", "")
    assert "Select a block" in page.block.on_select({"selected": []}, *sight, "log")[0]
    told, profile, parts = page.block.on_select({"selected": [3, 4]}, *sight, "log")
    assert (
        "Block 3" in told
        and "profile with edits like drop:attn" in told
        and profile.props["spec"]
        and parts.props["spec"]
    )
    edit, told, difference, matrix = page.maps.on_look(*sight, "drop", chosen, None)
    assert (
        edit.value == "merge"
        and "drop" in told
        and difference.props["spec"]
        and matrix.props["spec"]
    )


def test_launch_checks_names_and_numbers(store: Store):
    panel = LaunchPanel(store, PlanPage(store))
    assert 'role="alert"' in panel.on_save(key(store), "../../evil")
    assert (
        "Saved" in panel.on_save(key(store), "mine")
        and (store.workspace / "plans" / "mine.yaml").exists()
    )
    assert "no student" in panel.on_distil("/etc", "workbench", 5, 0, None)
    for bad in ("", "a/b", "..", "x" * 99):
        with pytest.raises(BadInput):
            safe_name(bad, "plan")
    for bad in (None, "5", 1.5, 0, True, float("nan")):
        with pytest.raises((BadInput, ValueError)):
            whole(bad, 1, 10, "steps")
    assert (
        "--timesteps 8"
        in panel.commands(key(store), "plan", None, "workbench", 5, 0, ["drop"], 8, 1, None, None)[
            2
        ]
    )
    assert list_jobs(store) == []


def test_profiling_offers_every_edit_the_family_knows_and_every_metric(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    panel, asked = LaunchPanel(store, PlanPage(store)), {}
    offered = [value for _, value in panel.on_teacher(key(store)).choices]
    assert {"drop", "merge", "single", "int4", "drop:attn", "drop:text.mlp"} <= set(offered)
    monkeypatch.setattr(panel, "start", lambda kind, spec, title: asked.update(spec) or title)
    panel.on_profile(key(store), ["drop:mlp", "single"], 4, 1, 0, 0, "prediction", True)
    assert (
        asked["edits"] == ["drop:mlp", "single"]
        and asked["until_stable"] is True
        and "metric" not in asked
    )
    asked.clear()
    panel.on_profile(key(store), [], 4, 1, 0, 0, "cka", False)
    assert asked["metric"] == "cka" and "edits" not in asked and "until_stable" not in asked
    for edits, metric in (([], "prediction"), (["paint"], "prediction"), (["drop"], "taste")):
        assert "wb-problem" in panel.on_profile(key(store), edits, 4, 1, 0, 0, metric, False)
    line = panel.commands(
        key(store), "plan", None, "workbench", 5, 0, ["drop"], 8, 1, None, None, "image", True
    )[2]
    assert "--metric image" in line and "--until-stable" in line and "--edits drop" in line


def test_the_curve_asks_with_a_cursor_and_forged_questions_get_nothing(store: Store):
    page = JobsPage(store)
    for asked in (None, {}, {"job": "../..", "after": 0}, {"job": 5, "after": "x"}):
        assert page.tail(asked)["rows"] == []


# --- comparisons ----------------------------------------------------------------------------------


def with_pictures(store: Store) -> Comparison:
    from PIL import Image

    record = synthetic.comparison()
    folder = store.workspace / "comparisons" / "one"
    for model, files in record.images.items():
        for number, file in enumerate(files):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (96, 96), (40 * number, 80, 200 if model == "demo" else 90)).save(
                folder / file
            )
    record.save(folder / "comparison.json")
    return record


def test_a_finished_distillation_shows_what_it_repaired(store: Store):
    import gradio as gr

    with gr.Blocks():
        panel = RecoveryPanel(store)
        panel.build()
    job = synthetic.distilled(store, TEACHER)
    box, stage, chart, told = panel.on_job({"selected": job.id})
    assert (
        box.visible
        and len(stage.choices) == 2
        and stage.value == charts.stages(synthetic.recoverability(TEACHER))[-1]
    )
    assert len(chart.props["spec"]["vconcat"]) == 2 and "dropped" in told
    again = panel.on_job({"selected": job.id}, "warm start")
    assert again[1].value == "warm start" and again[2].props["spec"] != chart.props["spec"]
    for value in (None, {"selected": "7"}, {"selected": [1]}):
        assert panel.on_job(value)[0].visible is False
    (store.workspace / "teachers" / "synthetic.json").unlink()
    assert "not in the workspace" in panel.on_job({"selected": job.id})[3]


def test_a_comparison_shows_the_same_prompt_and_seed_on_both_sides(store: Store):
    with_pictures(store)
    page, folder = ComparePage(store), str(store.workspace / "comparisons" / "one")
    pair, caption, grid, at = page.picture(folder, "demo", "student-12", 3)
    assert [Path(p).name for p in pair] == ["demo-3.png", "student-12-3.png"] and at == 3
    assert "seed 1" in caption and "&lt;b&gt;" in caption and len(grid) == 4
    assert page.picture(folder, "demo", "student-12", 4)[3] == 0, "next goes round"
    assert page.picture("/etc", "demo", "x", 0)[0] is None


def test_pictures_outside_the_comparison_are_not_shown(store: Store):
    record = with_pictures(store)
    folder = store.workspace / "comparisons" / "one"
    data = json.loads((folder / "comparison.json").read_text())
    data["images"]["demo"] = ["../../../secret.png"] * 4
    assert ComparePage(store).file(folder, record.model_validate(data), "demo", 0) is None


def test_cost_table_escapes_names():
    comparison = synthetic.comparison()
    evil = comparison.models[0].model_copy(update={"name": "<img src=x>"})
    assert "<img" not in cost_table(
        comparison.model_copy(update={"models": [evil, comparison.models[1]]})
    )
