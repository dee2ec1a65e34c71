"""The plan page without a browser: its handlers, called with the forms that the browser fills in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest

from workbench import plans, rules
from workbench.charts.view import GIVEN
from workbench.records import BadInput
from workbench.ui import catalogue, draft, rules_panel, session_request
from workbench.ui.address import Place
from workbench.ui.launch_panel import LaunchPanel, NameForm
from workbench.ui.maps_panel import SecondForm
from workbench.ui.picture_panel import SavedForm
from workbench.ui.plan_page import PAINTED, ListsForm, PlanPage
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
    heat = {"version": version, "selected": list(selected), "window": "one", "teacher": key(store)}
    return PlanView(**{"heat": heat, "teacher": key(store), **fields})


def send(page: PlanPage, *edits: dict[str, Any], version: int | None = None) -> dict[str, Any]:
    """The answer to a batch of this window, numbered on from what it sent before."""
    store = page.store
    current = draft.load(store.workspace, TEACHER)
    last = current.last_number("one")
    numbered = [{"number": last + i, **edit} for i, edit in enumerate(edits, 1)]
    batch = {"teacher": key(store), "window": "one", "edits": numbered}
    return page.state.receive({**batch, "version": current.version if version is None else version})


def mark(verb: str, *places: int, **more: Any) -> dict[str, Any]:
    return {"verb": verb, "places": list(places), **more}


def painted(page: PlanPage, *selected: int) -> dict[str, Any]:
    """What the page shows after this window's edits."""
    return page.on_edited(shown(page.store, *selected))


def the_map(store: Store) -> str:
    return catalogue.maps(store, TEACHER)[0][1]


# --- edits ----------------------------------------------------------------------------------------


def test_a_batch_is_applied_in_its_order_and_a_refused_edit_stops_no_other(
    store: Store, page: PlanPage
):
    everything = mark("drop", *range(24))
    answer = send(page, mark("drop", 4, 5), everything, mark("keep", 4), mark("merge", 9))
    marks = [row["mark"] for row in answer["plan"]["marks"]]
    assert marks[3:6] == ["keep", "keep", "drop"] and marks[9:11] == ["merge", "merge"]
    assert [refusal["number"] for refusal in answer["refused"]] == [2]
    assert [offer["label"] for offer in answer["refused"][0]["offers"]] == [
        "Drop 1-23",
        "Drop 0-22",
    ]
    assert answer["version"] == 1 == draft.load(store.workspace, TEACHER).version
    changes = painted(page, 4)
    assert "22" in changes["budget"] and "blocks: [9, 10]" in changes["yaml"]
    assert changes["message"] == "" and "heat" not in changes


def test_a_batch_that_arrives_twice_is_applied_once(store: Store, page: PlanPage):
    batch = {"teacher": key(store), "window": "one", "version": 0}
    batch["edits"] = [{"number": 1, **mark("merge", 4)}, {"number": 2, **mark("merge", 4)}]
    first, again = page.state.receive(batch), page.state.receive(batch)
    assert first == again and first["version"] == 1
    assert [len(span) for span in draft.load(store.workspace, TEACHER).plan.stacks[PATH]][4] == 3


def test_what_changes_nothing_makes_no_version(store: Store, page: PlanPage):
    send(page, mark("merge", 4))
    before = draft.load(store.workspace, TEACHER)
    for edit in (mark("gain", 4, value="length"), mark("init", 4, value="mean"), mark("keep", 9)):
        assert send(page, edit) == {"version": 1, "refused": [], "plan": ANY}
    after = draft.load(store.workspace, TEACHER)
    assert (after.plan, after.undo) == (before.plan, before.undo)


def test_an_undo_takes_back_no_change_of_another_window_unseen(store: Store, page: PlanPage):
    send(page, mark("drop", 4))
    other = {"teacher": key(store), "window": "two", "version": 1}
    page.state.receive({**other, "edits": [{"number": 1, **mark("drop", 9)}]})
    answer = send(page, mark("undo"), version=1)
    assert "another window" in answer["refused"][0]["reason"] and answer["version"] == 2
    answer = send(page, mark("drop", 12), mark("undo"), version=1)
    assert answer["refused"] == [], "its own edit it may take back"
    drops = [row["at"] for row in answer["plan"]["marks"] if row["mark"] == "drop"]
    assert drops == [4, 9]
    assert send(page, mark("undo"))["refused"] == [], "seen by now"


@pytest.mark.parametrize(
    "sent",
    [
        None,
        {"edits": []},
        {"teacher": "/etc/passwd", "window": "w", "version": 0, "edits": []},
        {"teacher": "KEY", "window": "w" * 99, "version": 0, "edits": []},
        {"teacher": "KEY", "window": "w", "version": 0, "edits": [{"number": 1, "verb": "paint"}]},
        {"teacher": "KEY", "window": "w", "version": 0, "edits": [{"number": "1", "verb": "drop"}]},
        {
            "teacher": "KEY",
            "window": "w",
            "version": 0,
            "edits": [{"number": 1, "verb": "drop"}] * 501,
        },
    ],
)
def test_forged_batches_change_nothing_and_are_answered(store: Store, page: PlanPage, sent: Any):
    if isinstance(sent, dict) and sent.get("teacher") == "KEY":
        sent = {**sent, "teacher": key(store)}
    assert page.state.receive(sent)["refused"]
    assert draft.load(store.workspace, TEACHER).plan == plans.identity(TEACHER)


def test_places_that_are_none_are_left_out(store: Store, page: PlanPage):
    for heat in (None, [], "x", {"selected": "all"}, {"selected": [-1, 99, "4", 1.5, True, [1]]}):
        assert page.on_select(shown(store, heat=heat))["boxes"] == []
    assert send(page, mark("drop", -1, 99))["refused"]
    assert send(page, mark("drop", 4, 99))["plan"]["marks"][4]["mark"] == "drop"


def test_undo_redo_and_keep_all(store: Store, page: PlanPage):
    def depth(*edits: dict[str, Any]) -> int:
        return len(send(page, *edits)["plan"]["student"])

    assert depth(mark("drop", 4)) == 23
    assert [depth(mark("undo")), depth(mark("redo")), depth(mark("reset"))] == [24, 23, 24]
    assert "nothing to redo" in send(page, mark("redo"))["refused"][0]["reason"].lower()


def field(page: PlanPage, name: str, *selected: int) -> dict[str, Any]:
    """One field of the form of the selected blocks."""
    value = page.on_select(shown(page.store, *selected))["hand"]
    return next(row for row in value["fields"] if row["name"] == name)


def test_by_hand_every_control_changes_the_selected_student_blocks(store: Store, page: PlanPage):
    answer = send(
        page,
        mark("merge", 4, 5),
        mark("stream", 4, 5, value="single"),
        mark("init", 4, 5, value="last"),
        mark("gain", 4, 5, value="1.5"),
        mark("part", 4, 5, name="mlp", value=True),
        mark("part", 4, 5, name="attn", value=True),
    )
    assert answer["refused"] == []
    changes = painted(page, 4, 5)
    span = "{blocks: [4, 5], init: last, gain: 1.5, stream: single, drop: [mlp, attn]}"
    assert span in changes["yaml"]
    assert ["mlp", True] in changes["hand"]["parts"]
    assert field(page, "stream", 4, 5)["value"] == "single"
    send(page, mark("part", 4, 5, name="mlp", value=False))
    assert "drop: [attn]}" in painted(page)["yaml"]
    assert "lots" in send(page, mark("gain", 4, value="lots"))["refused"][0]["reason"]


def test_a_rank_of_modulation_is_chosen_for_the_selected_blocks(store: Store, page: PlanPage):
    before = field(page, "modulation", 4, 5)
    assert before["value"] == "plan" and before["enabled"]
    student = send(page, mark("modulation", 4, 5, value="8"))["plan"]["student"]
    assert [row["less"] for row in student[3:7]] == ["", "r8", "r8", ""]
    changes = painted(page, 4, 5)
    assert changes["yaml"].count("modulation: {rank: 8}") == 2
    assert plans.SAVES in changes["budget"]
    assert send(page, mark("modulation", 4, 5, value="8"))["version"] == 1, "it says so already"
    send(page, mark("undo"))
    assert field(page, "modulation", 4, 5)["value"] == "plan"
    assert plans.SAVES not in painted(page)["budget"]
    assert send(page, mark("modulation", 4, value="lots"))["refused"]


def test_a_family_without_modulation_of_its_own_says_why(store: Store, page: PlanPage):
    of = synthetic.without_modulation()
    of.save(store.workspace / "teachers" / "shared.json")
    keys = {label: value for label, value in catalogue.teachers(store)}
    window = PlanView(heat={"version": 0, "selected": [1]}, teacher=keys["shared modulation"])
    fields = page.on_select(window)["hand"]["fields"]
    control = next(row for row in fields if row["name"] == "modulation")
    assert not control["enabled"] and "shared by all blocks" in control["info"]


def test_unused_parts_are_offered_and_dropped(store: Store, page: PlanPage):
    send(page, mark("merge", 4, 5))
    changes = painted(page)
    assert changes["free"].visible and "text.output of block 22" in changes["free"].value
    send(page, mark("unused"))
    after = painted(page)
    assert after["free"].visible is False and after["budget"] != changes["budget"]
    assert "drop: [text.output]" in after["yaml"]


def test_boxes_of_the_table_are_not_set_while_a_person_ticks_them(store: Store, page: PlanPage):
    window = shown(store, 4, 5)
    changes = page.on_select(window)
    assert changes["boxes"] == [4, 5] and "2 selected" in changes["chosen"]
    at_table = replace(window, heat={**window.heat, "source": "table"})
    assert "boxes" not in page.on_select(at_table) and "boxes" not in page.on_edited(at_table)


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


def test_a_tick_waits_for_the_first_paint_which_shows_the_teacher_edited_last(
    store: Store, page: PlanPage
):
    draft.change(store.workspace, TEACHER, 0, lambda current: current)
    empty = PlanView()
    assert page.on_tick(Place(), empty, ListsForm()) == {}, (
        "the paint is on its way, and knows the address"
    )
    for changes in (page.on_load(empty), page.on_tick(Place(), empty, ListsForm(PAINTED))):
        assert changes["teacher"].value == key(store)


def test_a_tick_before_the_paint_has_reached_the_browser_shows_what_the_address_names(
    store: Store, page: PlanPage
):
    place = Place(teacher="synthetic", select="3-5,9")
    for changes in (
        page.on_address(place, PlanView()),
        page.on_tick(place, PlanView(), ListsForm(PAINTED)),
    ):
        assert changes["heat"].constructor_args["value"]["select"] == [3, 4, 5, 9]


def test_a_tick_sends_lists_that_changed_and_nothing_else(store: Store, page: PlanPage):
    window = shown(store, map=the_map(store))
    changes = page.on_tick(Place(), window, ListsForm(PAINTED))
    lists = {"teacher", "map", "second", "saved"}
    assert lists | {"listed", "steps", "address"} == set(changes)
    assert page.on_tick(Place(), window, ListsForm(changes["listed"])) == {}


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
    send(page, mark("drop", 4))
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


# --- several windows ------------------------------------------------------------------------------


def test_a_tick_shows_what_another_window_did_and_waits_for_its_own(store: Store, page: PlanPage):
    window = shown(store, map=the_map(store))
    lists = ListsForm(page.on_tick(Place(), window, ListsForm(PAINTED))["listed"])
    send(page, mark("drop", 4))
    assert page.on_tick(Place(), window, lists) == {}, "the answer is on its way"
    elsewhere = replace(window, heat={**window.heat, "window": "two"})
    heat = page.on_tick(Place(), elsewhere, lists)["heat"]
    assert "another window" in heat["note"] and heat["version"] == 1
    assert "selected" not in heat, "the selection is the browser's"
