"""Addresses without a browser: names are looked up among what is listed, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from workbench import plans
from workbench.records import BadInput, Card, Plan
from workbench.ui import catalogue, steps
from workbench.ui.address import Lookup, Place, marked, names_of, places_of, value_of, while_open
from workbench.ui.compare_page import ComparePage, FinishedForm
from workbench.ui.jobs_page import JobsForm, JobsPage
from workbench.ui.plan_state import PlanView
from workbench.workspace import jobs
from workbench.workspace.store import Store

from . import synthetic
from .conftest import built_page

TEACHER = synthetic.teacher(24)
FOREIGN = ("/etc/passwd", "../teachers/synthetic", "<img src=x onerror=alert(1)>", "${1}", "nobody")


def test_what_is_no_short_text_is_left_out():
    for sent in (None, [], "tab=jobs", {"tab": 5, "teacher": ["x"], "map": "x" * 201}):
        assert Place.of(sent) == Place()
    assert Place.of({"tab": "jobs", "number": 3, "more": "x"}) == Place(tab="jobs", number=3)
    assert Place.of({"number": "3"}) == Place()


def test_each_entry_of_a_list_has_a_name_of_its_own():
    choices = [("a", "/w/maps/one.json"), ("b", "/far/one.json"), ("c", "demo"), ("d", "/w/v1.5")]
    names = names_of(choices)
    assert len(set(names.values())) == 4
    assert [names["demo"], names["/w/v1.5"]] == ["demo", "v1.5"]
    assert {value_of(choices, name, "map") for name in names.values()} == set(names)
    assert set(marked(choices)) == {"/w/maps/one.json", "/far/one.json"}, "the others it can tell"


@pytest.mark.parametrize("text", ["x", "5-3", "0-24", "-1", "1,,2", "1-2-3", "٣", "9" * 50])
def test_blocks_that_are_none_are_refused(text: str):
    with pytest.raises(BadInput):
        places_of(text, 24)
    assert places_of("3-5, 9,4", 24) == [3, 4, 5, 9]


def test_a_page_shows_what_its_address_names(store: Store):
    first = catalogue.maps(store, TEACHER)[0][1]
    synthetic.sensitivity(TEACHER).save(store.workspace / "sensitivity" / "second.json")
    place = Place(teacher="synthetic", map="synthetic", select="3-5,9", number=2)
    with built_page(store) as page:
        changes = page.on_address(place, PlanView())
        assert changes["teacher"].value.endswith("teachers/synthetic.json")
        assert changes["map"].value == first and changes["message"] == ""
        assert changes["heat"].value["select"] == [3, 4, 5, 9] == changes["boxes"].value
        assert changes["address"].props["seen"] == 2
        heat = {"version": 0, "teacher": changes["teacher"].value, "selected": [3]}
        shown = PlanView(heat=heat, teacher=changes["teacher"].value, map=first)
        moved = page.on_address(Place(tab="plan", teacher="synthetic", number=3), shown)
        assert "teacher" not in moved and moved["heat"]["select"] == [], "no new drawing"
        elsewhere = page.on_address(Place(tab="jobs", teacher="synthetic", number=4), shown)
        assert set(elsewhere) == {"address", "listed"}


def test_names_that_are_not_listed_are_told_in_one_line(store: Store):
    teachers = catalogue.teachers(store)
    for name in FOREIGN:
        lookup = Lookup()
        assert lookup.value(teachers, name, "teacher") is None and lookup.places(name, 24) == []
        assert len(lookup.refusals) == 2
    jobs_page, compare = JobsPage(store), ComparePage(store)
    assert "wb-problem" in jobs_page.on_address(Place("jobs", job=name), JobsForm())["message"]
    place = Place("compare", comparison=name)
    assert "wb-problem" in compare.on_address(place, FinishedForm())["message"]
    outside = store.workspace / "outside.yaml"
    outside.write_text("teacher: synthetic")
    key = teachers[-1][1]
    shown = PlanView(heat={"version": 0, "teacher": key}, teacher=key)
    fields = {"teacher": "<img src=x>", "map": "${1}", "plan": str(outside), "select": "99"}
    with built_page(store) as page:
        for field, name in fields.items():
            changes = page.on_address(Place(**{field: name}), shown)
            assert changes["message"].count("wb-problem") == 1 and "<img" not in changes["message"]
            assert changes["heat"]["plan"]["marks"], "the rest is shown"


def test_a_job_is_shown_by_its_address_and_back_to_another_page_changes_nothing(store: Store):
    page = JobsPage(store)
    first = jobs.submit(store, "info", {"teacher": "demo"}, title="first", start=False)
    last = jobs.submit(store, "info", {"teacher": "demo"}, title="last", start=False)

    def selected(place: Place, form: Any) -> Any:
        return page.on_address(place, form)["curve"]["job"]

    assert selected(Place("jobs", job=first.id), JobsForm(remembered=last.id)) == first.id
    assert selected(Place("jobs"), JobsForm(remembered=first.id)) == first.id
    assert selected(Place("jobs", job=last.id, number=1), JobsForm()) == last.id
    assert page.on_address(Place("plan", number=2), JobsForm()) == {}


# --- the steps ------------------------------------------------------------------------------------


def without(block: int) -> Plan:
    """The plan of all blocks but one."""
    kept = [at for at in range(24) if at != block]
    spans = plans.spans_of_kept(24, kept)
    return plans.identity(TEACHER).model_copy(update={"stacks": {"transformer_blocks": spans}})


def made(store: Store, name: str, plan: Plan, **more: Any) -> None:
    """A student's folder as far as the pages read it."""
    card = Card(
        teacher=TEACHER.name,
        teacher_fingerprint=TEACHER.fingerprint or "",
        original=TEACHER.name,
        original_fingerprint=TEACHER.fingerprint or "",
        plan=plan.as_yaml(),
        parameters=1,
        teacher_parameters=2,
        original_parameters=2,
        **more,
    )
    folder = store.workspace / "students" / name
    folder.mkdir()
    card.save(folder / "card.json")


def states(store: Store, plan: Plan) -> list[bool]:
    key = catalogue.teachers(store)[-1][1]
    return [each.done for each in steps.path(store, key, TEACHER, plan)]


def test_steps_are_done_for_the_plan_on_screen_alone(store: Store):
    whole = plans.identity(TEACHER)
    fewer = without(4)
    assert states(store, whole) == [True, False, False, False, False, False]
    made(store, "built", fewer)
    assert states(store, whole) == [True, False, False, False, False, False]
    assert states(store, fewer) == [True, True, True, False, False, False]
    made(store, "trained", fewer, spec={"stages": []})
    assert states(store, fewer)[3]
    shown = steps.steps_html(steps.path(store, catalogue.teachers(store)[-1][1], TEACHER, fewer))
    assert shown.count("class='done'") == 4 and shown.count("class='next'") == 1
    assert "Compare, next: compare it" in shown and "teacher=synthetic" in shown


def test_names_in_the_steps_are_text(store: Store):
    fewer = without(4)
    made(store, "<img src=x onerror='alert(1)'>", fewer)
    key = catalogue.teachers(store)[-1][1]
    assert "<img" not in steps.steps_html(steps.path(store, key, TEACHER, fewer))


def test_a_panel_draws_only_while_the_address_has_it_open():
    drawn: list[str] = []

    def handler(form: str) -> dict[str, Any]:
        drawn.append(form)
        return {"figure": form}

    in_panel = while_open("block", handler)
    for place in (Place(), Place(panel="maps"), Place(tab="jobs", panel="block")):
        assert in_panel(place, "hidden") == {}
    assert in_panel(Place(panel="block"), "shown") == {"figure": "shown"}
    assert while_open("propose", handler)(Place(tab="plan"), "first") == {"figure": "first"}
    assert drawn == ["shown", "first"]
