"""Edits of the plan as a browser window sends them: in their order, each with its blocks.

A press of K and the selection it was meant for travel together. What is pressed while an answer is
on its way follows in one batch, and edits are numbered: one that arrives twice is applied once
(edits.js).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

from .. import charts, plans
from ..plans.editing import marks, span_fields
from ..plans.editing.offers import offers
from ..plans.editing.selection import edited_origin
from ..records import BadInput, Teacher
from . import view
from .draft import Draft

MOST = 500  # edits in one batch
Choice = str | StrictBool | None


class Edit(BaseModel):
    """One press. verb: a name of VERBS. places: on the block axis. name: of the part that verb
    `part` is about. value: what a field of the form was set to; for a part, whether it is dropped.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    number: int = Field(ge=1, strict=True)
    verb: str = Field(max_length=20)
    places: list[StrictInt] = Field(default=[], max_length=10_000)
    name: str = Field(default="", max_length=100)
    value: Choice = None


class Batch(BaseModel):
    """What a window sends at once. teacher: a value of the list. version: of the plan it shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    teacher: str
    window: str = Field(max_length=60)
    version: int
    edits: list[Edit] = Field(max_length=MOST)


@dataclass(frozen=True)
class Refusal:
    """An edit that was not made: why, in words, and what to press instead."""

    number: int
    reason: str
    offers: tuple[dict[str, Any], ...] = ()

    def as_data(self) -> dict[str, Any]:
        return {"number": self.number, "reason": self.reason, "offers": list(self.offers)}


def read(sent: object) -> Batch:
    """A batch as it came over the wire. Raises BadInput for anything else."""
    try:
        return Batch.model_validate(sent)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise BadInput(f"edits, {place}: {fault['msg']}", "edits of this page", "reload") from None


# --- what each verb does --------------------------------------------------------------------------

Selected = dict[str, list[int]]  # stack path -> blocks
Verb = Callable[[Draft, Teacher, Selected, Edit], Draft]


def marked(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    """Keep, drop or merge the selected blocks."""
    check_selected(selected, edit)
    return current.edited(marks.edit(current.plan, teacher, selected, edit.verb))


def field_set(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    """Set stream, init, gain or modulation of the selected student blocks."""
    value: dict[str, Any] = {edit.verb: str(edit.value)}
    return current.edited(span_fields.change(current.plan, teacher, selected, **value))


def part_set(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    """Drop or restore one part of the selected student blocks."""
    where = "drop" if edit.value else "restore"
    value: dict[str, Any] = {where: [edit.name]}
    return current.edited(span_fields.change(current.plan, teacher, selected, **value))


def unused_dropped(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    """Drop the parts that no output depends on."""
    plan = plans.cut_free(current.plan, teacher)
    plan = plan.model_copy(update={"origin": edited_origin(current.plan)})
    return current.edited(plans.check(plan, teacher))


def all_kept(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    return current.to(plans.identity(teacher))


def undone(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    return current.back()


def redone(current: Draft, teacher: Teacher, selected: Selected, edit: Edit) -> Draft:
    return current.forth()


VERBS: dict[str, Verb] = {
    "keep": marked,
    "drop": marked,
    "merge": marked,
    "stream": field_set,
    "init": field_set,
    "gain": field_set,
    "modulation": field_set,
    "part": part_set,
    "unused": unused_dropped,
    "reset": all_kept,
    "undo": undone,
    "redo": redone,
}


# --- a batch --------------------------------------------------------------------------------------


def applied(current: Draft, batch: Batch, teacher: Teacher) -> tuple[Draft, list[Refusal]]:
    """The draft after a batch, and the edits that were refused; the others are all made."""
    refusals: list[Refusal] = []
    is_seen = batch.version == current.version or current.window == batch.window
    for edit in batch.edits:
        if edit.number <= current.last_number(batch.window):
            continue
        before = current
        current = current.numbered(batch.window, edit.number)
        selected = view.by_stack(teacher, view.known_places(edit.places, teacher))
        try:
            if edit.verb not in VERBS:
                raise BadInput(f"edit {edit.verb!r}", "one of " + ", ".join(VERBS), "reload")
            if edit.verb == "undo" and not is_seen:
                raise BadInput(
                    "the last change was made in another window",
                    "a change that this window shows",
                    "it is shown now: press Undo again to take it back",
                )
            current = VERBS[edit.verb](current, teacher, selected, edit)
        except BadInput as error:
            refusals.append(refusal(edit, error, before, teacher, selected))
            continue
        is_seen = is_seen or current.plan is not before.plan
    return current, refusals


def refusal(
    edit: Edit, error: BadInput, current: Draft, teacher: Teacher, selected: Selected
) -> Refusal:
    """Why an edit was not made, with the nearest possible ones."""
    found = error.found[:1].upper() + error.found[1:]
    if edit.verb not in marks.MARKS:
        return Refusal(edit.number, f"{found}: {error.do}.")
    near = []
    starts = charts.offsets(teacher)
    for offer in offers(current.plan, teacher, selected, edit.verb):
        places = []
        for path, blocks in offer.selection.items():
            places += [starts[path] + block for block in blocks]
        near.append({"label": offer.label, "verb": offer.mark, "places": places})
    if not near:
        return Refusal(edit.number, f"{found}: {error.do}.")
    return Refusal(edit.number, f"{found}.", tuple(near))


def check_selected(selected: Selected, edit: Edit) -> None:
    if not selected:
        raise BadInput(
            "no block is selected", "a selection", f"click or drag on the map, then {edit.verb}"
        )
