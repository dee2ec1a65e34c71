"""A plan of a plan, told in blocks of the first teacher."""

from __future__ import annotations

from ..records import Init, Plan, Span


def compose(outer: Plan, inner: Plan) -> Plan | None:
    """A plan over the student of `inner`, told in blocks of inner's teacher; None where no span can
    tell it.

    It says where the weights began: training between the two plans is not in it.
    """
    stacks = {}
    for path, spans in outer.stacks.items():
        parts = [_compose(span, inner.stacks[path][span.first : span.last + 1]) for span in spans]
        if None in parts:
            return None
        stacks[path] = [part for part in parts if part is not None]
    return Plan(
        teacher=inner.teacher,
        family=inner.family,
        origin={"rule": "composed", "of": [inner.digest, outer.digest]},
        stacks=stacks,
    )


def _compose(outer: Span, inner: list[Span]) -> Span | None:
    """One span of `outer` over the spans that made its blocks."""
    sources = [inner[block - outer.first] for block in outer.source]
    first = sources[0]
    alike = {
        (span.gain, span.stream, span.drop, len(span), span.init if len(span) > 1 else "mean")
        for span in sources
    }
    init: Init
    if len(inner) == 1:
        init = first.init
    elif (
        len(sources) > 1
    ):  # a mean of means of equal length is a mean, where nothing else stands in the span
        if len(alike) > 1 or len(first.source) != len(first):
            return None
        init = "mean"
    elif first.source == (inner[0].first,):
        init = "first"
    elif first.source == (inner[-1].last,):
        init = "last"
    elif first.source == ((inner[0].first + inner[-1].last) // 2,):
        init = "middle"
    else:
        return None
    return Span(
        blocks=(inner[0].first, inner[-1].last),
        init=init,
        gain=outer.gain * first.gain,
        stream=outer.stream or first.stream,
        drop=tuple(dict.fromkeys((*first.drop, *outer.drop))),
    )
