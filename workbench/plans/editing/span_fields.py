"""What the selected student blocks are made of: stream, init, gain, modulation, dropped parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...families import StackRow
from ...records import BadInput, Init, Plan, Span, StackInfo, Teacher
from ..check import can_single, check
from ..gains import Gain, gain_for, parse_gain
from ..removable import removable_parts
from ..spans import family_of
from ..text_stream import single, slim_parts
from . import modulation_choice
from .selection import Selection, checked_selection, edited_origin

StreamChoice = Literal["dual", "slim", "single"]
STREAMS: tuple[str, ...] = get_args(StreamChoice)


@dataclass(frozen=True)
class Change:
    """What is to change in student blocks; what is None or empty stays.

    stream: `single` (text and image share the image branch's weights; parts of the text branch go
    with it), `slim` (the text is only read: text_stream.slim_parts go) or `dual` (as the teacher's,
    with its text). init: what a block of several starts from. gain: a number, or `length`. drop,
    restore: parts to take away and to bring back, where a block has them. modulation: a rank, `keep`
    (as in the teacher) or `plan` (what the plan says for all), where a block has linears of its own.
    """

    stream: str | None = None
    init: str | None = None
    gain: Gain | None = None
    drop: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    modulation: str | None = None


def change(
    plan: Plan,
    teacher: Teacher,
    selection: Selection,
    *,
    stream: str | None = None,
    init: str | None = None,
    gain: float | str | None = None,
    drop: Iterable[str] = (),
    restore: Iterable[str] = (),
    modulation: str | int | None = None,
) -> Plan:
    """The plan with the selected student blocks changed; see Change for the arguments.

    Raises BadInput naming the block and the reason; an empty selection is refused too.
    """
    if stream not in (None, *STREAMS) or init not in (None, *get_args(Init)):
        raise BadInput(
            f"stream {stream!r}, init {init!r}",
            f"{', '.join(STREAMS)}; {', '.join(get_args(Init))}",
            "choose one",
        )
    selected = selected_blocks(plan, teacher, selection)
    if not any(selected.values()):
        raise BadInput("no block is selected", "a selection", "click or drag on the map")
    factor = None if gain is None else parse_gain(gain)
    rank = None if modulation is None else str(modulation)
    changes = Change(stream, init, factor, tuple(drop), tuple(restore), rank)
    _check_known(changes, parts(plan, teacher, selection))
    if rank is not None:
        modulation_choice.check_choice(rank, plan, teacher, selected)
    stacks = dict(plan.stacks)
    for path, numbers in selected.items():
        stack = teacher.stack(path)
        row = family_of(teacher).stack(path)
        spans = list(plan.stacks[path])
        for number in numbers:
            new = changed(spans[number], changes, stack, row)
            spans[number] = modulation_choice.with_choice(
                new, spans[number], rank, plan.modulation, stack, row
            )
        stacks[path] = spans
    update = {"stacks": stacks, "origin": edited_origin(plan)}
    return check(plan.model_copy(update=update), teacher)


def _check_known(changes: Change, known: tuple[str, ...]) -> None:
    for part in (*changes.drop, *changes.restore):
        if part not in known:
            raise BadInput(
                f"part {part!r} is in none of the selected blocks",
                "one of " + ", ".join(known),
                "choose another",
            )


def changed(span: Span, changes: Change, stack: StackInfo, row: StackRow) -> Span:
    """One span with the changes that apply to it: only dual blocks have a stream to change, and a
    block alone starts as itself.
    """
    update: dict[str, Any] = {}
    if changes.init is not None and len(span) > 1:
        update["init"] = changes.init
    if changes.gain is not None:
        update["gain"] = gain_for(changes.gain, len(span))
    if changes.stream is not None and row.kind == "dual":
        update["stream"] = "single" if changes.stream == "single" else None
    new = span.model_copy(update=update)
    drop = _changed_drop(span, new, changes, stack, row)
    new = new.model_copy(update={"drop": drop})
    return single(new) if new.stream == "single" else new


def _changed_drop(
    old: Span, new: Span, changes: Change, stack: StackInfo, row: StackRow
) -> tuple[str, ...]:
    """The parts that the changed span lacks."""
    text = slim_parts(row)
    lacking = [part for part in old.drop if part not in changes.restore]
    if changes.stream == "dual" and stream_of(old, row) == "slim":
        lacking = [part for part in lacking if part not in text]
    added = list(changes.drop)
    if changes.stream == "slim":
        added += text
    possible = removable_parts(new, stack, row)
    return tuple(dict.fromkeys([*lacking, *(part for part in added if part in possible)]))


def stream_of(span: Span, row: StackRow) -> str:
    """single, dual, or slim where the text of a dual block is only read."""
    if span.stream:
        return span.stream
    text = slim_parts(row)
    return "slim" if text and set(text) <= set(span.drop) else row.kind


# --- what there is to choose ---------------------------------------------------------------------


def selected_blocks(plan: Plan, teacher: Teacher, selection: Selection) -> dict[str, set[int]]:
    """Stack path -> numbers of the student blocks that the selected teacher blocks belong to."""
    out: dict[str, set[int]] = {}
    for path, blocks in checked_selection(selection, teacher).items():
        out[path] = set()
        for number, span in enumerate(plan.stacks[path]):
            if not blocks.isdisjoint(range(span.first, span.last + 1)):
                out[path].add(number)
    return out


def parts(plan: Plan, teacher: Teacher, selection: Selection) -> tuple[str, ...]:
    """Parts that any selected student block could do without."""
    family = family_of(teacher)
    names: dict[str, None] = {}
    for path, numbers in selected_blocks(plan, teacher, selection).items():
        for number in sorted(numbers):
            span = plan.stacks[path][number]
            possible = removable_parts(span, teacher.stack(path), family.stack(path))
            names |= dict.fromkeys(possible)
    return tuple(names)


@dataclass(frozen=True)
class State:
    """What the selected student blocks have in common; None where they differ.

    gain: a number as text, or length. drop: parts that all of them lack. parts: parts that any of
    them has or lacks. single: whether any of them can be single-stream. modulation: `plan`, `keep`
    or a rank as text. modulations: what can be chosen, label and value. no_modulation: why nothing
    can; empty where something can.
    """

    count: int = 0
    stream: str | None = None
    init: str | None = None
    gain: str | None = None
    drop: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    single: bool = False
    modulation: str | None = None
    modulations: tuple[tuple[str, str], ...] = ()
    no_modulation: str = ""


def state(plan: Plan, teacher: Teacher, selection: Selection) -> State:
    """For a form: how the selection stands, and what can be chosen."""
    family = family_of(teacher)
    spans: list[Span] = []
    streams: set[str] = set()
    able = False
    selected = selected_blocks(plan, teacher, selection)
    for path, numbers in selected.items():
        row = family.stack(path)
        of_stack = [plan.stacks[path][number] for number in sorted(numbers)]
        streams |= {stream_of(span, row) for span in of_stack}
        spans += of_stack
        able = able or (bool(of_stack) and can_single(teacher, path))
    if not spans:
        return State()
    return State(
        count=len(spans),
        stream=common(streams),
        init=common(span.init for span in spans if len(span) > 1),
        gain=common(gain_in_words(span) for span in spans),
        drop=dropped_by_all(spans),
        parts=parts(plan, teacher, selection),
        single=able,
        modulation=common(modulation_choice.chosen(span, plan.modulation) for span in spans),
        modulations=modulation_choice.choices(plan, teacher, selected),
        no_modulation=modulation_choice.refusal(plan, teacher, selected),
    )


def dropped_by_all(spans: list[Span]) -> tuple[str, ...]:
    """The parts that none of these blocks has, in the order of the first."""
    common_drop = set(spans[0].drop)
    for span in spans[1:]:
        common_drop &= set(span.drop)
    return tuple(part for part in spans[0].drop if part in common_drop)


def gain_in_words(span: Span) -> str:
    """A gain as a form shows it: length where it is that of a span of several blocks."""
    return "length" if len(span) > 1 and span.gain == len(span) else f"{span.gain:g}"


def common(values: Iterable[str]) -> str | None:
    """The value that all of them are; None where they differ or there is none."""
    different = set(values)
    return different.pop() if len(different) == 1 else None
