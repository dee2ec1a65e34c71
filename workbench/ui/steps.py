"""The way from a teacher to a released student, across the top of the page: what is done for the
current plan, what is next, and where on the pages each step is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from .. import plans
from ..records import BadInput, Card, Plan, Teacher
from ..workspace.record_index import Entry
from ..workspace.store import Store
from . import catalogue
from .address import names_of
from .text import plural

MOST_CARDS = 100  # newest students and releases that are looked at


@dataclass(frozen=True)
class Step:
    """note: what there is, or what to do. address: where the step is taken, or its result is."""

    name: str
    done: bool
    note: str
    address: dict[str, str]


@dataclass(frozen=True)
class Made:
    """What a student was made of, and whether it was distilled."""

    stacks: object
    fingerprint: str
    distilled: bool


def path(store: Store, key: str, teacher: Teacher, plan: Plan) -> list[Step]:
    """The steps of one plan. key: the teacher's value in the list."""
    here = {"teacher": names_of(catalogue.teachers(store)).get(key, "")}
    maps = catalogue.maps(store, teacher)
    map_note = plural(len(maps), "map") if maps else "profile the teacher"
    depth = sum(len(spans) for spans in plan.stacks.values())
    blocks = sum(stack.depth for stack in teacher.stacks)
    is_plan = plan.stacks != plans.identity(teacher).stacks
    students = of_plan(store.students(), teacher, plan) if is_plan else []
    built = [entry.name for entry, _ in students]
    distilled = [entry.name for entry, made in students if made.distilled]
    releases = of_plan(store.records("release"), teacher, plan) if is_plan else []
    released = [entry.name for entry, _ in releases]
    compared = [entry for entry in store.comparisons() if set(built) & set(entry.models)]
    compare = {**here, "tab": "compare"}
    if compared:
        compare["comparison"] = names_of(catalogue.comparisons(store))[compared[0].path]
    to_release = "on the command line: workbench release STUDENT"
    return [
        Step("Map", bool(maps), map_note, {**here, "form": "profile"}),
        Step("Plan", is_plan, f"{depth} of {blocks} blocks", here),
        step("Build", built, "build this plan", {**here, "form": "build"}),
        step("Distill", distilled, "distill it", {**here, "form": "distill"}),
        step("Compare", [entry.name for entry in compared], "compare it", compare),
        step("Release", released, to_release, {**here, "tab": "jobs"}),
    ]


def step(title: str, results: list[str], task: str, address: dict[str, str]) -> Step:
    """A step by the names of its results. task: what to do while there are none."""
    return Step(title, bool(results), ", ".join(results) or task, address)


def results(store: Store) -> list[tuple[str, float]]:
    """What the steps after the plan have made, whichever plan it was: paths and times."""
    found = []
    for kind in ("student", "comparison", "release"):
        found += [(entry.path, entry.created) for entry in store.records(kind)]
    return found


def of_plan(entries: list[Entry], teacher: Teacher, plan: Plan) -> list[tuple[Entry, Made]]:
    """The students, or releases, that were built from this plan of this teacher; newest first."""
    found = []
    for entry in entries[:MOST_CARDS]:
        made = made_from(entry.path, entry.created)
        if made is None or made.stacks != plan.stacks:
            continue
        is_of_teacher = entry.teacher == teacher.name
        if made.fingerprint and teacher.fingerprint:
            is_of_teacher = made.fingerprint == teacher.fingerprint
        if is_of_teacher:
            found.append((entry, made))
    return found


@lru_cache(maxsize=2 * MOST_CARDS)
def made_from(folder: str, changed: float) -> Made | None:
    """What the card in a folder says, read again when its time `changed`; None where it cannot be
    read.
    """
    file = Path(folder) / "card.json"
    try:
        card = Card.load(file)
        plan = Plan.parse(card.plan, f"plan of {file}")
    except BadInput:
        return None
    return Made(plan.stacks, card.teacher_fingerprint, card.spec is not None)


# --- as text --------------------------------------------------------------------------------------


def steps_html(steps: list[Step]) -> str:
    """A list of links: each step with its mark; what is next is marked, too."""
    undone = [each.name for each in steps if not each.done]
    items = []
    for number, each in enumerate(steps, 1):
        kind, mark, state = "", str(number), "to do"
        if each.done:
            kind, mark, state = "done", "✓", "done"
        elif each.name == undone[0]:
            kind, state = "next", "next"
        href = escape("?" + urlencode({key: value for key, value in each.address.items() if value}))
        words = escape(f", {state}: {each.note}")
        items.append(
            f"<li class='{kind}'><a data-address href='{href}' title='{each.name}{words}'>"
            f"<i>{mark}</i><span>{each.name}<span class='wb-unseen'>{words}</span></span></a></li>"
        )
    return f"<nav aria-label='Steps to a student'><ol class='wb-steps'>{''.join(items)}</ol></nav>"
