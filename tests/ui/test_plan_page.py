"""The plan page without a browser: its handlers, called with the forms that the browser fills in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workbench import plans, rules
from workbench.charts.view import GIVEN
from workbench.records import BadInput
from workbench.ui import catalogue, draft, rules_panel, session_request
from workbench.ui.edit_panel import HandForm
from workbench.ui.launch_panel import LaunchPanel, NameForm
from workbench.ui.maps_panel import SecondForm
from workbench.ui.picture_panel import SavedForm
from workbench.ui.plan_page import BoxesForm, ListsForm, PlanPage
from workbench.ui.plan_state import PlanState, PlanView
from workbench.ui.preview_panel import PreviewForm
from workbench.ui.rules_panel import RuleForm
from workbench.workspace.session_client import Answer, PreviewRequest
from workbench.workspace.store import Store

from . import synthetic
from .conftest import built_page

PATH = "transformer_blocks"
TEACHER = synthetic.teacher(24)


@pytest.fixture
def page(store: Store) -> Iterator[PlanPage]:
    with built_page(store) as built:
        yield built


def key(store: Store) -> str:
    return next(value for label, value in catalogue.teachers(store) if label == "synthetic")


def shown(store: Store, *selected: int, **fields: Any) -> PlanView:
    """A window that shows the plan as it is on disk."""
    version = draft.load(store.workspace, TEACHER).version
    heat = {"version": version, "selected": list(selected)}
    return PlanView(**{"heat": heat, "teacher": key(store), **fields})


def the_map(store: Store) -> str:
    return catalogue.maps(store, TEACHER)[0][1]


# --- marks ----------------------------------------------------------------------------------------


def test_marks_change_the_plan_on_disk_and_a_bad_one_is_one_line(store: Store, page: PlanPage):
    old_window = shown(store, 4, 5)
    changes = page.marker("drop")(old_window)
    assert changes["heat"]["version"] == 1
    marks = [row["mark"] for row in changes["heat"]["plan"]["marks"]]
    assert marks[3:6] == ["keep", "drop", "drop"]
    assert "22" in changes["budget"] and "blocks: [3, 5]" in changes["yaml"]
    assert changes["message"] == ""
    changes = page.marker("drop")(shown(store, *range(24)))
    assert "wb-problem" in changes["message"] and changes["heat"]["version"] == 1
    assert changes["heat"]["selected"] == list(range(24))
    assert "another window" in page.marker("keep")(old_window)["message"]


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
def test_forged_values_change_nothing(store: Store, page: PlanPage, heat: Any):
    window = shown(store, heat=heat)
    for changes in (
        page.marker("drop")(window),
        page.hand.on_stream(window, HandForm(stream="single")),
        page.hand.on_parts(window, HandForm(parts=["mlp"])),
    ):
        assert "wb-problem" in changes["message"]
    assert not draft.path_of(store.workspace, TEACHER).exists()


def test_undo_redo_and_keep_all(store: Store, page: PlanPage):
    page.marker("drop")(shown(store, 4))
    assert len(page.on_undo(shown(store))["heat"]["plan"]["student"]) == 24
    assert len(page.on_redo(shown(store))["heat"]["plan"]["student"]) == 23
    assert len(page.on_reset(shown(store))["heat"]["plan"]["student"]) == 24


def test_by_hand_every_control_changes_the_selected_student_blocks(store: Store, page: PlanPage):
    def window() -> PlanView:
        return shown(store, 4, 5)

    page.marker("merge")(window())
    page.hand.on_stream(window(), HandForm(stream="single"))
    page.hand.on_init(window(), HandForm(init="last"))
    page.hand.on_gain(window(), HandForm(gain="1.5"))
    changes = page.hand.on_parts(window(), HandForm(parts=["mlp", "attn"]))
    span = "{blocks: [4, 5], init: last, gain: 1.5, stream: single, drop: [mlp, attn]}"
    assert span in changes["yaml"] and changes["message"] == ""
    assert changes["parts"].value == ["mlp", "attn"] and changes["stream"].value == "single"
    changes = page.hand.on_parts(window(), HandForm(parts=["attn"]))
    assert "drop: [attn]}" in changes["yaml"]
    assert page.hand.on_gain(window(), HandForm(gain="")) == {}
    assert "wb-problem" in page.hand.on_gain(window(), HandForm(gain="lots"))["message"]


def test_a_rank_of_modulation_is_chosen_for_the_selected_blocks(store: Store, page: PlanPage):
    before = page.on_select(shown(store, 4, 5))
    assert before["modulation"].value == "plan" and before["modulation"].interactive
    changes = page.hand.on_modulation(shown(store, 4, 5), HandForm(modulation="8"))
    assert changes["yaml"].count("modulation: {rank: 8}") == 2
    assert plans.SAVES in changes["budget"]
    student = changes["heat"]["plan"]["student"]
    assert [row["less"] for row in student[3:7]] == ["", "r8", "r8", ""]
    old_window = shown(store, 4, 5, heat={"version": 0, "selected": [4, 5]})
    assert page.hand.on_modulation(old_window, HandForm(modulation="8")) == {}, "reported twice"
    undone = page.on_undo(shown(store, 4, 5))
    assert undone["modulation"].value == "plan" and plans.SAVES not in undone["budget"]
    assert page.hand.on_modulation(shown(store, 4), HandForm(modulation=None)) == {}
    forged = page.hand.on_modulation(shown(store, 4), HandForm(modulation="lots"))
    assert "wb-problem" in forged["message"]


def test_a_family_without_modulation_of_its_own_says_why(store: Store, page: PlanPage):
    of = synthetic.without_modulation()
    of.save(store.workspace / "teachers" / "shared.json")
    keys = {label: value for label, value in catalogue.teachers(store)}
    window = PlanView(heat={"version": 0, "selected": [1]}, teacher=keys["shared modulation"])
    control = page.on_select(window)["modulation"]
    assert not control.interactive and "shared by all blocks" in control.info


def test_unused_parts_are_offered_and_dropped(store: Store, page: PlanPage):
    changes = page.marker("merge")(shown(store, 4, 5))
    assert changes["free"].visible and "text.output of block 22" in changes["free"].value
    after = page.hand.on_free_cut(shown(store), HandForm())
    assert after["free"].visible is False and after["budget"] != changes["budget"]
    assert "drop: [text.output]" in after["yaml"]


def test_the_table_selects_blocks_as_the_map_does(store: Store, page: PlanPage):
    changes = page.on_boxes(shown(store), BoxesForm([5, 4]))
    assert changes["heat"]["selected"] == [4, 5] and "2 selected" in changes["chosen"]
    assert page.on_select(shown(store, 4, 5))["boxes"] == [4, 5]


# --- views ----------------------------------------------------------------------------------------


def test_an_unknown_teacher_map_or_weighting_is_refused(store: Store, page: PlanPage):
    with pytest.raises(BadInput):
        catalogue.teacher(store, "/etc/passwd")
    assert catalogue.sensitivity(store, TEACHER, "/etc/passwd") is None
    for weighting, weights, found in (("mine", "", "mine"), (GIVEN, "x", "x")):
        window = shown(store, weighting=weighting, weights=weights)
        with pytest.raises(BadInput) as refused:
            page.state.look(window)
        assert repr(found) in refused.value.found
        assert "wb-problem" in page.on_weighting(window)["message"]


def test_edit_and_scale_change_without_a_new_drawing(store: Store, page: PlanPage):
    heat = page.on_switch(shown(store, edit="merge", colour="linear"))["heat"]
    assert heat.props["shown"] == {"edit": "merge", "colour": "linear"}
    assert "spec" not in heat.props


def test_the_weighting_changes_the_bars_alone(store: Store, page: PlanPage):
    """The bars are the scores under the given weights, computed a second way."""
    window = shown(store, 3, map=the_map(store), weighting=GIVEN, weights="1000=1, 0=0")
    changes = page.on_weighting(window)
    assert changes["weights"].visible and "spec" not in changes["heat"].props
    weights = {time: time / 1000 for time in synthetic.TIMES}
    expected = plans.block_scores(
        catalogue.sensitivity(store, TEACHER, the_map(store)), "drop", weights
    )
    bars = {
        row["at"]: row["score"]
        for row in changes["heat"].props["measures"]["bars"]
        if row["edit"] == "drop"
    }
    assert bars[3] == pytest.approx(expected[(PATH, 3)], rel=1e-4)


def test_another_map_leaves_edit_and_scale_alone_where_they_still_suit(
    store: Store, page: PlanPage
):
    """A choice made while the response is on its way must stay."""
    window = shown(store, map=the_map(store), edit="merge")
    changes = page.on_map(window)
    assert "colour" not in changes and "value" not in changes["edit"].constructor_args
    assert changes["heat"].props["shown"] == {"edit": "merge", "colour": "log"}
    changes = page.on_map(replace(window, edit="gone", colour="linear"))
    assert changes["colour"] == "log" and changes["edit"].constructor_args["value"] == "drop"


def test_a_tick_before_the_first_paint_shows_the_teacher_edited_last(store: Store, page: PlanPage):
    draft.change(store.workspace, TEACHER, 0, lambda current: current)
    empty = PlanView()
    for changes in (page.on_load(empty), page.on_tick(empty, ListsForm())):
        assert changes["teacher"].value == key(store)


def test_a_tick_sends_lists_that_changed_and_nothing_else(store: Store, page: PlanPage):
    window = shown(store, map=the_map(store))
    changes = page.on_tick(window, ListsForm())
    assert {"listed", "teacher", "map", "second", "saved"} == set(changes)
    assert page.on_tick(window, ListsForm(changes["listed"])) == {}


def test_looking_closer_says_what_is_missing(store: Store, page: PlanPage):
    assert "no sensitivity map" in page.block.on_select(shown(store, 3))["about"]
    chosen = the_map(store)
    assert "Select a block" in page.block.on_select(shown(store, map=chosen))["about"]
    changes = page.block.on_look(shown(store, 3, 4, map=chosen))
    assert "Block 3" in changes["about"] and "drop:attn" in changes["about"]
    assert all(changes[name].props["spec"] for name in ("profile", "parts", "edits"))
    changes = page.maps.on_look(shown(store, map=chosen), SecondForm(chosen))
    assert changes["edit"].value == "merge" and "drop" in changes["message"]
    assert changes["difference"].props["spec"] and changes["correlation"].props["spec"]


# --- proposals ------------------------------------------------------------------------------------


def propose(
    page: PlanPage, store: Store, form: RuleForm, chosen: str | None = None, **options: Any
) -> dict[str, Any]:
    window = shown(store, map=chosen, weighting="high-noise")
    return page.rules.on_propose(window, form, (12, 1), page.rules.options.filled(**options))


def test_a_proposal_becomes_the_draft(store: Store, page: PlanPage):
    chosen = the_map(store)
    amber = RuleForm("amber")
    changes = propose(page, store, amber, chosen, init="mean", gain="length")
    assert len(changes["heat"]["plan"]["student"]) == 12
    assert "predicted error" in changes["budget"]
    other_map = propose(page, store, amber)
    assert other_map["message"] == "", "a map of this teacher serves, though none is on screen"
    Path(chosen).unlink()
    assert "wb-problem" in propose(page, store, amber)["message"]
    changes = propose(page, store, RuleForm("uniform", "params", "0.4"))
    info = plans.plan_info(draft.load(store.workspace, TEACHER).plan, TEACHER)
    assert changes["message"] == "" and 0.3 < info.ratio <= 0.4


@pytest.mark.parametrize(
    ("form", "options", "found"),
    [
        (RuleForm("uniform", "params", "2"), {}, "params=2"),
        (RuleForm("uniform", "bytes", "many"), {}, "bytes=many"),
        (RuleForm("uniform", "wishes", "1"), {}, "wishes"),
        (RuleForm("none"), {}, "none"),
        (RuleForm("uniform"), {"protect": "1;2"}, "protect"),
        (RuleForm("uniform"), {"gain": "much"}, "gain"),
        (RuleForm("uniform"), {"init": "best"}, "Init"),
        (RuleForm("uniform"), {"single_from": "x"}, "single_from"),
    ],
)
def test_a_wrong_field_is_refused_and_changes_nothing(
    store: Store, page: PlanPage, form: RuleForm, options: dict[str, Any], found: str
):
    with pytest.raises(BadInput) as refused:
        propose(page, store, form, **options)
    assert found in refused.value.found
    assert draft.load(store.workspace, TEACHER).version == 0


def test_the_form_shows_every_rule_with_its_options_and_paper(page: PlanPage):
    assert [value for _, value in page.rules.rule.choices] == list(rules.RULES)
    for name, row in rules.RULES.items():
        changes = page.rules.on_rule(RuleForm(name))
        about = changes.pop("about")
        assert escape(row.title) in about and (not row.link or f'href="{row.link}"' in about)
        visible = {option for option, widget in changes.items() if widget.visible}
        assert visible == set(rules_panel.fields_of(name))
    assert all(widget.info for widget in page.rules.options.inputs), "every option is explained"


def test_a_rule_that_measures_runs_as_a_job(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    submitted: list[Any] = []

    def submit(store: Store, verb: str, spec: Any, title: str) -> Any:
        submitted.append((verb, spec))
        return SimpleNamespace(id="7", state="queued", title=title)

    monkeypatch.setattr(rules_panel.jobs, "submit", submit)
    form = RuleForm("search", "params", "0.5")
    changes = propose(page, store, form, minutes="2", protect="0, 1")
    assert "job 7 is queued" in changes["message"]
    verb, spec = submitted[0]
    assert verb == "plan" and spec.rule == "search" and spec.budget == "params=0.5"
    assert spec.minutes == 2.0 and spec.protect == [0, 1]
    assert spec.out.startswith(str(store.workspace / "plans"))


def test_a_slider_for_each_stack(tmp_path: Path):
    flux = synthetic.flux(6, 4)
    flux.save(tmp_path / "teachers" / "flux.json")
    store = Store(tmp_path)
    name = next(value for label, value in catalogue.teachers(store) if label == flux.name)
    with built_page(store) as page:
        changes = page.on_teacher(PlanView(teacher=name))
        sliders = [changes[f"keep{number}"] for number in range(2)]
        assert [(slider.maximum, slider.visible) for slider in sliders] == [(6, True), (4, True)]
        window = PlanView(heat={"version": 0}, teacher=name)
        page.rules.on_propose(window, RuleForm(), (3, 2), page.rules.options.filled())
    assert draft.load(tmp_path, flux).plan.depth() == {PATH: 3, "single_transformer_blocks": 2}


# --- saved plans and previews ---------------------------------------------------------------------


def test_a_saved_plan_opens_and_its_difference_is_shown(store: Store, page: PlanPage):
    difference = page.picture.on_look(shown(store), SavedForm())["difference"]
    assert "No saved plan of this teacher yet" in difference
    LaunchPanel(page.state).on_save(shown(store), NameForm("first"))
    saved = SavedForm(catalogue.plans(store, TEACHER)[0][1])
    assert "identical" in page.picture.on_look(shown(store), saved)["difference"]
    page.marker("drop")(shown(store, 4))
    assert "Differs from the saved plan" in page.picture.on_look(shown(store), saved)["difference"]
    changes = page.picture.on_open(shown(store), saved)
    assert len(changes["heat"]["plan"]["student"]) == 24
    refused = page.picture.on_open(shown(store), SavedForm("/etc/passwd"))
    assert "one of the list" in refused["message"]


def test_a_preview_asks_the_session_and_says_what_it_is_doing(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    requests: list[PreviewRequest] = []

    def submit(store: Store, kind: str, spec: PreviewRequest) -> int:
        requests.append(spec)
        return 5

    monkeypatch.setattr(session_request.session_client, "request", submit)
    changes = page.preview.on_run(shown(store), PreviewForm(prompt="a star", seed=3))
    assert changes["pending"].number == 5
    assert requests[0].prompts == ["a star"] and requests[0].seeds == [3]
    waiting = PreviewForm(pending=changes["pending"])
    answer = Answer(id=5, kind="preview", state="running", message="loading the teacher")
    monkeypatch.setattr(session_request.session_client, "result", lambda store, number: answer)
    assert "loading the teacher" in page.preview.on_tick(waiting)["message"]
    answer = Answer(id=5, kind="preview", state="failed", error="no such folder")
    assert "no such folder" in page.preview.on_tick(waiting)["message"]
    with pytest.raises(BadInput) as refused:
        page.preview.on_run(shown(store), PreviewForm(prompt="a star", seed=1.5))
    assert refused.value.found == "seed 1.5"


def test_a_preview_takes_the_conditioning_vectors_beside_the_map(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    requests: list[PreviewRequest] = []

    def submit(store: Store, kind: str, spec: PreviewRequest) -> int:
        requests.append(spec)
        return 5

    monkeypatch.setattr(session_request.session_client, "request", submit)
    window = shown(store, map=the_map(store))
    page.preview.on_run(window, PreviewForm(prompt="a star"))
    file = Path(the_map(store)).with_suffix(".conditioning.safetensors")
    file.write_bytes(b"")
    page.preview.on_run(window, PreviewForm(prompt="a star"))
    page.preview.on_run(shown(store, map="/etc/passwd"), PreviewForm(prompt="a star"))
    assert [request.conditioning for request in requests] == [None, str(file), None]


def test_an_empty_workspace_without_bundled_teachers_says_what_to_do(
    store: Store, page: PlanPage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalogue, "teachers", lambda store: [])
    assert "Add a teacher" in page.on_load(PlanView())["message"]


def test_a_state_can_be_shared_by_pages(store: Store):
    """The state knows the store; the page only adds widgets."""
    assert PlanState(store).all_widgets == {}
