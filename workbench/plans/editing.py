"""Editing student blocks by hand: single stream, dropped parts, what they start from, gain.

Layer 1, pure: a plan and the teacher blocks a person selected give another plan. `marks.py` decides
which blocks there are; this changes what the student blocks that the selected teacher blocks belong
to are made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from .. import plans
from ..families import StackRow
from ..records import BadInput, Init, Plan, Span, StackInfo, Teacher
from .text_stream import slim_parts

Selection = Mapping[str, Iterable[int]]  # stack path -> teacher blocks
STREAMS = ("dual", "slim", "single")


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
) -> Plan:
    """The plan with the selected student blocks changed; what is None or empty stays.

    stream: `single` (text and image share the image branch's weights; parts of the text branch go
    with it), `slim` (the text is only read: the parts of `rules.deep.slim_parts` go) or `dual` (as
    the teacher's, with its text). init: what a block of several starts from. gain: a number, or
    `length` (as many times as it has blocks). drop, restore: parts to take away and to bring back,
    where a block has them. Raises BadInput naming the block and the reason; nothing selected is
    refused too.
    """
    if stream not in (None, *STREAMS) or init not in (None, *get_args(Init)):
        raise BadInput(
            f"stream {stream!r}, init {init!r}",
            f"{', '.join(STREAMS)}; {', '.join(get_args(Init))}",
            "choose one",
        )
    touched = spans_of(plan, teacher, selection)
    if not any(touched.values()):
        raise BadInput("no block is selected", "a selection", "click or drag on the map")
    factor = gain if gain in (None, "length") else checked_gain(gain)
    known = parts(plan, teacher, selection)
    if unknown := [part for part in (*drop, *restore) if part not in known]:
        raise BadInput(
            f"part {unknown[0]!r} is in none of the selected blocks",
            "one of " + ", ".join(known),
            "choose another",
        )
    stacks = dict(plan.stacks)
    for path, numbers in touched.items():
        stack, row = teacher.stack(path), plans.family_of(teacher).stack(path)
        stacks[path] = [
            changed(span, stack, row, stream, init, factor, tuple(drop), tuple(restore))
            if number in numbers
            else span
            for number, span in enumerate(plan.stacks[path])
        ]
    return plans.check(plan.model_copy(update={"stacks": stacks, "origin": edited(plan)}), teacher)


def changed(
    span: Span,
    stack: StackInfo,
    row: StackRow,
    stream: str | None,
    init: str | None,
    gain: float | str | None,
    drop: tuple[str, ...],
    restore: tuple[str, ...],
) -> Span:
    """One span with what was asked for, as far as it applies: dual is how dual blocks are, a block
    alone starts as itself.
    """
    new: dict[str, object] = {}
    if stream is not None and row.kind == "dual":
        new["stream"] = "single" if stream == "single" else None
    if init is not None and len(span) > 1:
        new["init"] = init
    if gain is not None:
        new["gain"] = float(len(span)) if gain == "length" else gain
    kept = [part for part in span.drop if part not in restore]
    held = held_parts(
        span.model_copy(update={"stream": new.get("stream", span.stream)}), stack, row
    )
    text = slim_parts(row)
    if stream == "slim":
        drop = tuple(dict.fromkeys((*drop, *text)))
    elif stream == "dual" and stream_of(span, row) == "slim":
        kept = [part for part in kept if part not in text]
    now = (*kept, *(part for part in drop if part in held and part not in kept))
    if new.get("stream", span.stream) == "single":
        now = tuple(part for part in now if not part.startswith("text."))
    return span.model_copy(update=new | {"drop": now})


def stream_of(span: Span, row: StackRow) -> str:
    """single, dual, or slim where the text of a dual block is only read."""
    text = slim_parts(row)
    return span.stream or ("slim" if text and set(text) <= set(span.drop) else row.kind)


def checked_gain(value: object) -> float:
    try:
        gain = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        gain = 0.0
    if not 0 < gain < 1e4:
        raise BadInput(f"gain {value!r}", "a positive number, or length", "choose one")
    return gain


def edited(plan: Plan) -> dict[str, object]:
    """Where the plan came from, with a note that a person went over it."""
    if plan.origin.get("rule") in (None, "by hand", "identity"):
        return {"rule": "by hand"} if plan.origin.get("rule") != "by hand" else dict(plan.origin)
    return {**plan.origin, "edited": "by hand"}


# --- what there is to choose ----------------------------------------------------------------------


def spans_of(plan: Plan, teacher: Teacher, selection: Selection) -> dict[str, set[int]]:
    """Stack path -> numbers of the student blocks that the selected teacher blocks belong to."""
    out: dict[str, set[int]] = {}
    for path, wanted in selection.items():
        depth, blocks = teacher.stack(path).depth, set(wanted)
        if odd := sorted(b for b in blocks if not 0 <= b < depth):
            raise BadInput(
                f"{path}: block {odd[0]} does not exist",
                f"blocks 0 to {depth - 1}",
                "select others",
            )
        out[path] = {
            i
            for i, s in enumerate(plan.stacks[path])
            if any(s.first <= b <= s.last for b in blocks)
        }
    return out


def held_parts(span: Span, stack: StackInfo, row: StackRow) -> tuple[str, ...]:
    """Parts that this student block could do without: those its layout has; what only the last
    block has in the last one.
    """
    fitted = row.fitted(stack.tensors(span.source[0])).parts
    return tuple(
        name
        for name, part in fitted.items()
        if (not part.last_only or span.last == stack.depth - 1)
        and not (span.stream == "single" and name.startswith("text."))
    )


@dataclass(frozen=True)
class State:
    """What the selected student blocks have in common; None where they differ."""

    count: int = 0
    stream: str | None = None
    init: str | None = None
    gain: str | None = None  # a number as text, or length
    drop: tuple[str, ...] = ()  # parts that all of them lack
    parts: tuple[str, ...] = ()  # parts that any of them has or lacks
    single: bool = False  # whether any of them can be single-stream


def state(plan: Plan, teacher: Teacher, selection: Selection) -> State:
    """For a form: how the selection stands, and what can be chosen."""
    chosen = [
        (teacher.stack(path), plan.stacks[path][n])
        for path, numbers in spans_of(plan, teacher, selection).items()
        for n in numbers
    ]
    if not chosen:
        return State()
    family = plans.family_of(teacher)
    streams = {stream_of(span, family.stack(stack.path)) for stack, span in chosen}
    inits = {span.init for _, span in chosen if len(span) > 1}
    gains = {
        "length" if len(span) > 1 and span.gain == len(span) else f"{span.gain:g}"
        for _, span in chosen
    }
    lacking = [part for part in chosen[0][1].drop if all(part in span.drop for _, span in chosen)]
    return State(
        len(chosen),
        one(streams),
        one(inits),
        one(gains),
        tuple(lacking),
        parts(plan, teacher, selection),
        any(can_single(teacher, stack.path) for stack, _ in chosen),
    )


def one(found: Iterable[str]) -> str | None:
    alike = set(found)
    return alike.pop() if len(alike) == 1 else None


def parts(plan: Plan, teacher: Teacher, selection: Selection) -> tuple[str, ...]:
    """Parts that any selected student block could do without."""
    family, out = plans.family_of(teacher), dict[str, None]()
    for path, numbers in spans_of(plan, teacher, selection).items():
        for number in sorted(numbers):
            out |= dict.fromkeys(
                held_parts(plan.stacks[path][number], teacher.stack(path), family.stack(path))
            )
    return tuple(out)


def can_single(teacher: Teacher, path: str) -> bool:
    """Whether a plan may make blocks of this stack single-stream: what `plans.check` says of it."""
    stack = teacher.stack(path)
    if stack.kind != "dual" or not plans.family_of(teacher).stack(path).tie:
        return False
    pinned = plans.family_of(teacher).stack(path).pinned_in(stack.depth)
    free = next((b for b in range(stack.depth) if b not in pinned), None)
    if free is None:
        return False
    identity = plans.identity(teacher)
    spans = [
        s.model_copy(update={"stream": "single"}) if s.first == free else s
        for s in identity.stacks[path]
    ]
    try:
        plans.check(
            identity.model_copy(update={"stacks": {**identity.stacks, path: spans}}), teacher
        )
    except BadInput:
        return False
    return True
