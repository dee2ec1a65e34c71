"""Editing a plan by hand: keep, drop or merge selected blocks. An edit changes the spans it touches
and no other.

Layer 1: pure arithmetic on spans, shared by the app and the notebook.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

from .. import plans
from ..records import BadInput, Plan, Span, Teacher

Mark = Literal["keep", "drop", "merge"]
MARKS: tuple[str, ...] = get_args(Mark)


def edit(plan: Plan, teacher: Teacher, selection: Mapping[str, Iterable[int]], mark: str) -> Plan:
    """The plan after marking the selected blocks (stack path -> blocks).

    keep: each block stands alone again. drop: it goes, and a neighbour's span covers its place.
    merge: the selected run becomes one block (mean of the weights, gain = length where the family
    has one); one block alone merges with the next.
    """
    if mark not in MARKS:
        raise BadInput(f"mark {mark!r}", "one of " + ", ".join(MARKS), "choose one")
    stacks = dict(plan.stacks)
    family = plans.family_of(teacher)
    for path, wanted in selection.items():
        depth, blocks = teacher.stack(path).depth, set(wanted)
        if odd := sorted(b for b in blocks if not 0 <= b < depth):
            raise BadInput(
                f"{path}: block {odd[0]} does not exist",
                f"blocks 0 to {depth - 1}",
                "select others",
            )
        if blocks and mark == "merge":
            stacks[path] = merged(stacks[path], blocks, bool(family.stack(path).gain), path)
        elif blocks:
            stacks[path] = marked(stacks[path], depth, blocks, mark, path)
    origin = (
        plan.origin
        if plan.origin.get("rule") in (None, "by hand")
        else {**plan.origin, "edited": "by hand"}
    )
    if plan.origin.get("rule") == "identity":
        origin = {"rule": "by hand"}
    return plans.check(plan.model_copy(update={"stacks": stacks, "origin": origin}), teacher)


def runs(blocks: Iterable[int]) -> list[list[int]]:
    """Consecutive numbers, grouped."""
    out: list[list[int]] = []
    for block in sorted(blocks):
        if out and out[-1][-1] == block - 1:
            out[-1].append(block)
        else:
            out.append([block])
    return out


def merged(spans: list[Span], blocks: set[int], gain: bool, path: str) -> list[Span]:
    """Each selected run becomes one span; a run that is one span already takes the next one in."""
    for run in runs(blocks):
        inside = [i for i, s in enumerate(spans) if s.first <= run[-1] and s.last >= run[0]]
        a, b = inside[0], inside[-1]
        if a == b and (len(run) == 1 or spans[a].init == "mean"):
            a, b = (a, b + 1) if b + 1 < len(spans) else (a - 1, b)
        if a < 0:
            raise BadInput(
                f"{path}: one student block is left", "two blocks to merge", "keep a block first"
            )
        pair = (spans[a].first, spans[b].last)
        one = Span(blocks=pair, init="mean", gain=float(pair[1] - pair[0] + 1) if gain else 1.0)
        spans = [*spans[:a], one, *spans[b + 1 :]]
    return spans


def marked(spans: list[Span], depth: int, blocks: set[int], mark: str, path: str) -> list[Span]:
    """Keep or drop blocks. Spans that are merged (or start from their middle or last block) stand
    as walls unless touched.
    """
    walls: list[Span] = []
    kept: set[int] = set()
    for span in spans:
        members = set(range(span.first, span.last + 1))
        touched = members & blocks
        if len(span) > 1 and not touched and span.init != "first":
            walls.append(span)
        elif len(span) > 1 and span.init == "mean":
            rest = runs(members - touched)
            walls += [resized(span, (r[0], r[-1])) for r in rest if len(r) > 1]
            kept |= {r[0] for r in rest if len(r) == 1}
        else:
            kept |= set(span.source) - touched
    if mark == "keep":
        kept |= blocks
    if not kept and not walls:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    former = {span.source: span for span in spans}
    out: list[Span] = []
    start = 0
    for end, wall in [(w.first, [w]) for w in walls] + [(depth, [])]:
        out += [like(former.get(s.source), s) for s in between(start, end, kept, path)] + wall
        start = wall[0].last + 1 if wall else depth
    return out


def between(start: int, end: int, kept: set[int], path: str) -> list[Span]:
    """Spans over blocks start..end-1, given which of them are kept."""
    if start >= end:
        return []
    try:
        spans = plans.spans_of_kept(
            end - start, [b - start for b in kept if start <= b < end], path
        )
    except BadInput:
        name = f"block {start}" if end == start + 1 else f"blocks {start}-{end - 1}"
        raise BadInput(
            f"{path}: {name} cannot be dropped so: no neighbour's span can cover the place",
            "a kept block beside each dropped run",
            "keep a neighbour, or merge the run instead",
        ) from None
    return [s.model_copy(update={"blocks": (s.first + start, s.last + start)}) for s in spans]


def resized(span: Span, blocks: tuple[int, int]) -> Span:
    """The span over other blocks; a gain that was its length follows the length."""
    length = blocks[1] - blocks[0] + 1
    gain = float(length) if span.gain == len(span) else span.gain
    return span.model_copy(update={"blocks": blocks, "gain": gain})


def like(former: Span | None, span: Span) -> Span:
    """Carry over what a person or rule had set on the student block of the same source."""
    if former is None:
        return span
    gain = float(len(span)) if former.gain == len(former) and len(former) > 1 else former.gain
    return span.model_copy(update={"gain": gain, "stream": former.stream, "drop": former.drop})
