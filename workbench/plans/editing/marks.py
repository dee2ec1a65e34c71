"""Keep, drop or merge selected blocks. An edit changes the spans it touches and no other."""

from __future__ import annotations

from typing import Literal, get_args

from ...records import BadInput, Plan, Span, Teacher
from ...records.plan import filled
from ..check import check
from ..describe_span import blocks_in_words
from ..spans import family_of, spans_of_kept
from .selection import Selection, checked_selection, edited_origin, runs

Mark = Literal["keep", "drop", "merge"]
MARKS: tuple[str, ...] = get_args(Mark)


def edit(plan: Plan, teacher: Teacher, selection: Selection, mark: str) -> Plan:
    """The plan after marking the selected blocks (stack path -> blocks).

    keep: each block stands alone again. drop: it goes, and a neighbour's span covers its place.
    merge: the selected run becomes one block (mean of the weights, gain = length where the family
    has a gain); one block alone merges with the next. Raises BadInput naming the block and the
    reason.
    """
    if mark not in MARKS:
        raise BadInput(f"mark {mark!r}", "one of " + ", ".join(MARKS), "choose one")
    stacks = dict(plan.stacks)
    family = family_of(teacher)
    for path, blocks in checked_selection(selection, teacher).items():
        if not blocks:
            continue
        if mark == "merge":
            stacks[path] = merged(stacks[path], blocks, bool(family.stack(path).gain), path)
        else:
            stacks[path] = kept_or_dropped(stacks[path], blocks, mark, path)
    if plan.modulation is not None:
        for path, spans in stacks.items():
            stacks[path] = [filled(span, plan.modulation) for span in spans]
    update = {"stacks": stacks, "origin": edited_origin(plan)}
    return check(plan.model_copy(update=update), teacher)


def merged(spans: list[Span], blocks: set[int], has_gain: bool, path: str) -> list[Span]:
    """Each selected run becomes one span; a run that is one span already takes the next one in."""
    for run in runs(blocks):
        touched = [i for i, s in enumerate(spans) if s.first <= run[-1] and s.last >= run[0]]
        first = touched[0]
        last = touched[-1]
        if first == last and (len(run) == 1 or spans[first].init == "mean"):
            if last + 1 < len(spans):
                last += 1
            else:
                first -= 1
        if first < 0:
            raise BadInput(
                f"{path}: one student block is left", "two blocks to merge", "keep a block first"
            )
        start = spans[first].first
        end = spans[last].last
        gain = float(end - start + 1) if has_gain else 1.0
        spans = [
            *spans[:first],
            Span(blocks=(start, end), init="mean", gain=gain, modulation=spans[first].modulation),
            *spans[last + 1 :],
        ]
    return spans


def kept_or_dropped(spans: list[Span], blocks: set[int], mark: str, path: str) -> list[Span]:
    """Keep or drop blocks. Spans that are merged, or start from their middle or last block, stay
    as they are unless touched; the room between them is divided anew among the kept blocks.
    """
    depth = spans[-1].last + 1
    fixed: list[Span] = []
    kept: set[int] = set()
    for span in spans:
        fixed += fixed_spans(span, blocks)
        kept |= kept_blocks(span, blocks)
    if mark == "keep":
        kept |= blocks
    if not kept and not fixed:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    former = {span.source: span for span in spans}
    out: list[Span] = []
    start = 0
    for wall in fixed:
        room = spans_between(start, wall.first, kept, path)
        out += [with_settings_of(former.get(span.source), span) for span in room]
        out.append(wall)
        start = wall.last + 1
    room = spans_between(start, depth, kept, path)
    return out + [with_settings_of(former.get(span.source), span) for span in room]


def stays(span: Span, blocks: set[int]) -> bool:
    """Whether a span stays as it is when `blocks` are marked elsewhere."""
    touched = any(span.first <= block <= span.last for block in blocks)
    return len(span) > 1 and span.init != "first" and not touched


def fixed_spans(span: Span, blocks: set[int]) -> list[Span]:
    """What stays of a span whose blocks are averaged: itself, or the untouched runs of it."""
    if stays(span, blocks):
        return [span]
    if len(span) == 1 or span.init != "mean":
        return []
    return [resized(span, run[0], run[-1]) for run in untouched(span, blocks) if len(run) > 1]


def kept_blocks(span: Span, blocks: set[int]) -> set[int]:
    """The blocks of a span that stand for themselves once `blocks` are taken out of it."""
    if stays(span, blocks):
        return set()
    if len(span) > 1 and span.init == "mean":
        return {run[0] for run in untouched(span, blocks) if len(run) == 1}
    return set(span.source) - blocks


def untouched(span: Span, blocks: set[int]) -> list[list[int]]:
    """The runs of a span's teacher blocks that are not among `blocks`."""
    return runs(set(range(span.first, span.last + 1)) - blocks)


def spans_between(start: int, end: int, kept: set[int], path: str) -> list[Span]:
    """Spans over blocks start..end-1, given which of them are kept."""
    if start >= end:
        return []
    inside = [block - start for block in kept if start <= block < end]
    try:
        spans = spans_of_kept(end - start, inside, path)
    except BadInput:
        raise BadInput(
            f"{path}: {blocks_in_words(start, end - 1)} cannot be dropped: no neighbour's span "
            "can cover the place",
            "a kept block beside each dropped run",
            "keep a neighbour, or merge the run instead",
        ) from None
    return [s.model_copy(update={"blocks": (s.first + start, s.last + start)}) for s in spans]


def resized(span: Span, first: int, last: int) -> Span:
    """The span over other blocks; a gain that was its length follows the length."""
    gain = span.gain
    if span.gain == len(span):
        gain = float(last - first + 1)
    return span.model_copy(update={"blocks": (first, last), "gain": gain})


def with_settings_of(former: Span | None, span: Span) -> Span:
    """The span with what a person or rule had set on the student block of the same source."""
    if former is None:
        return span
    gain = former.gain
    if len(former) > 1 and former.gain == len(former):
        gain = float(len(span))
    settings = {
        "gain": gain,
        "stream": former.stream,
        "drop": former.drop,
        "modulation": former.modulation,
    }
    return span.model_copy(update=settings)
