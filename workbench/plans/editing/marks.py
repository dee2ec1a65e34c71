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
    merge: each selected run becomes one block (mean of the weights, gain = length where the family
    has a gain). One block alone, or a run that is merged already, merges with the next; beside
    longer runs it stays as it is. Raises BadInput naming the block and the reason.
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
    """The spans with one for each run to merge; other blocks stay what they were."""
    to_merge = runs_to_merge(spans, blocks, path)
    taken = {block for run in to_merge for block in run}
    settings = {block: span.modulation for span in spans for block in span.source}
    averaged = []
    for run in to_merge:
        gain = float(len(run)) if has_gain else 1.0
        modulation = next((settings[block] for block in run if block in settings), None)
        ends = (run[0], run[-1])
        averaged.append(Span(blocks=ends, init="mean", gain=gain, modulation=modulation))
    return rebuilt(spans, taken, set(), averaged, path)


def runs_to_merge(spans: list[Span], blocks: set[int], path: str) -> list[list[int]]:
    """The blocks of each new span. Of several selected runs, those of one block are left alone. A
    run that is one student block already is merged with the next one.
    """
    selected = runs(blocks)
    longer = [run for run in selected if len(run) > 1]
    if len(selected) > 1 and not longer:
        names = ", ".join(str(block) for block in sorted(blocks))
        raise BadInput(
            f"blocks {names} of {path} are not neighbours",
            "neighbouring blocks to merge",
            "select the blocks between them as well",
        )
    if len(selected) > 1:
        return longer
    run = selected[0]
    touched = [i for i, span in enumerate(spans) if span.first <= run[-1] and span.last >= run[0]]
    span = spans[touched[0]]
    is_merged = span.init == "mean" and len(run) == len(span)
    if len(touched) > 1 or not (len(run) == 1 or is_merged):
        return [run]
    if len(spans) == 1:
        raise BadInput(
            f"one student block of {path} is left", "two blocks to merge", "keep a block first"
        )
    first = min(touched[0], len(spans) - 2)
    return [list(range(spans[first].first, spans[first + 1].last + 1))]


def kept_or_dropped(spans: list[Span], blocks: set[int], mark: str, path: str) -> list[Span]:
    """Keep or drop blocks."""
    kept = blocks if mark == "keep" else set()
    return rebuilt(spans, blocks, kept, [], path)


def rebuilt(
    spans: list[Span], blocks: set[int], kept: set[int], averaged: list[Span], path: str
) -> list[Span]:
    """The spans once `blocks` are taken out of them: `kept` stand alone, `averaged` are new spans.

    Spans that are merged, or start from their middle or last block, stay as they are unless
    touched; the room between them is divided anew among the kept blocks.
    """
    depth = spans[-1].last + 1
    fixed = list(averaged)
    kept = set(kept)
    for span in spans:
        fixed += fixed_spans(span, blocks)
        kept |= kept_blocks(span, blocks)
    if not kept and not fixed:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    former = {span.source: span for span in spans}
    out: list[Span] = []
    start = 0
    for wall in sorted(fixed, key=lambda span: span.first):
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
            f"{blocks_in_words(start, end - 1)} of {path} cannot be dropped: no kept block beside "
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
