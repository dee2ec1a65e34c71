"""The plan of a plan, in blocks of the first teacher."""

from __future__ import annotations

from collections.abc import Sequence

from ..records import Init, Plan, Span


def compose(outer: Plan, inner: Plan) -> Plan | None:
    """A plan over the student of `inner`, written in blocks of inner's teacher; None where some
    block has no such span.

    It says where the weights began; training between the two plans is not in it.
    """
    stacks: dict[str, list[Span]] = {}
    for path, spans in outer.stacks.items():
        stacks[path] = []
        for span in spans:
            composed = _compose(span, inner.stacks[path][span.first : span.last + 1])
            if composed is None:
                return None
            stacks[path].append(composed)
    return Plan(
        teacher=inner.teacher,
        family=inner.family,
        origin={"rule": "composed", "of": [inner.digest, outer.digest]},
        stacks=stacks,
    )


def _compose(outer: Span, inner: Sequence[Span]) -> Span | None:
    """One span of `outer` over the spans that made its blocks."""
    sources = [inner[block - outer.first] for block in outer.source]
    init = _composed_init(sources, inner)
    if init is None:
        return None
    first = sources[0]
    return Span(
        blocks=(inner[0].first, inner[-1].last),
        init=init,
        gain=outer.gain * first.gain,
        stream=outer.stream or first.stream,
        drop=tuple(dict.fromkeys((*first.drop, *outer.drop))),
        modulation=outer.modulation if outer.rank else first.modulation,
    )


def _composed_init(sources: Sequence[Span], inner: Sequence[Span]) -> Init | None:
    """The init over the first teacher's blocks that names the same weights, if there is one."""
    first = sources[0]
    if len(inner) == 1:
        return first.init
    if len(sources) > 1:
        return "mean" if _mean_of_means(sources) else None
    start, end = inner[0].first, inner[-1].last
    if first.source == (start,):
        return "first"
    if first.source == (end,):
        return "last"
    if first.source == ((start + end) // 2,):
        return "middle"
    return None


def _mean_of_means(sources: Sequence[Span]) -> bool:
    """Whether the mean of these blocks is a mean of teacher blocks: each is the mean of all its
    span, and they are equal in length and settings.
    """
    if any(len(span.source) != len(span) for span in sources):
        return False
    first = sources[0]
    settings = (first.gain, first.stream, first.drop, first.rank, len(first))
    return all(
        (span.gain, span.stream, span.drop, span.rank, len(span)) == settings for span in sources
    )
