"""A plan as a small SVG for a model card: teacher blocks above, student blocks below, spans
between. No library, no fonts of its own.

The app and the notebook draw theirs with `charts.plan_picture_chart`, which answers to the pointer;
a file on the Hub cannot.
"""

from __future__ import annotations

from html import escape

from ..records import Plan, Span, Teacher

# pixels; TALL a strip of blocks, GAP between the strips
WIDTH, LEFT, TALL, GAP = 960.0, 64.0, 18.0, 46.0
COLOURS = {"keep": "#3a7ca5", "drop": "#d1495b", "merge": "#e9a03b", "single": "#7a5195"}
WORDS = {"keep": "kept", "drop": "dropped", "merge": "several in one", "single": "single-stream"}
INK = "#7d8590"  # readable on white and on black


def picture(plan: Plan, teacher: Teacher) -> str:
    """The SVG's text. Stacks follow one another; blocks are as wide as the room allows."""
    unit = (WIDTH - LEFT) / max(sum(stack.depth for stack in teacher.stacks), 1)
    shapes: list[str] = []
    seen: set[str] = set()
    at = 0
    for stack in teacher.stacks:
        spans = plan.stacks[stack.path]
        shapes.append(
            _text(LEFT + at * unit, 11, f"{stack.path}: {stack.depth} → {len(spans)} blocks")
        )
        low = at + (stack.depth - len(spans)) / 2  # the student's strip is centred below
        for number, span in enumerate(spans):
            kind = _kind(span)
            seen |= {kind}
            for block in range(span.first, span.last + 1):
                mark = (
                    "drop"
                    if block not in span.source
                    else "merge"
                    if span.init == "mean" and len(span) > 1
                    else "keep"
                )
                seen |= {mark}
                shapes.append(
                    _block(at + block, 18, unit, mark, f"{stack.path} {block}: {WORDS[mark]}")
                )
            shapes.append(_ribbon(at + span.first, at + span.last + 1, low + number, unit, kind))
            shapes.append(
                _block(
                    low + number,
                    18 + TALL + GAP,
                    unit,
                    kind,
                    f"student block {number}: {_made(span)}",
                )
            )
            if span.drop:
                shapes.append(
                    _text(
                        LEFT + (low + number + 0.5) * unit, 18 + 2 * TALL + GAP + 11, "−", "middle"
                    )
                )
        at += stack.depth
    shapes += [
        _text(LEFT - 8, 18 + TALL / 2 + 4, "teacher", "end"),
        _text(LEFT - 8, 18 + TALL * 1.5 + GAP + 4, "student", "end"),
    ]
    shapes += [_key(place, kind) for place, kind in enumerate(k for k in COLOURS if k in seen)]
    tall = 18 + 2 * TALL + GAP + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {tall:.0f}" '
        f'font-family="sans-serif" font-size="11">\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _kind(span: Span) -> str:
    if span.stream == "single":
        return "single"
    return "merge" if len(span.source) > 1 else "keep"


def _made(span: Span) -> str:
    words = (
        f"of {span.first}"
        if len(span) == 1
        else f"of {span.first} to {span.last}, init {span.init}, gain {span.gain:g}"
    )
    return (
        words
        + (f", {span.stream}-stream" if span.stream else "")
        + (f", without {', '.join(span.drop)}" if span.drop else "")
    )


def _block(at: float, top: float, unit: float, kind: str, title: str) -> str:
    return (
        f'<rect x="{LEFT + at * unit + unit * 0.05:.1f}" y="{top:.0f}" '
        f'width="{unit * 0.9:.1f}" height="{TALL:.0f}" rx="2" '
        f'fill="{COLOURS[kind]}"><title>{escape(title)}</title></rect>'
    )


def _ribbon(first: float, end: float, to: float, unit: float, kind: str) -> str:
    top, low = 18 + TALL + 2, 18 + TALL + GAP - 2
    corners = ((first + 0.05, top), (end - 0.05, top), (to + 0.95, low), (to + 0.05, low))
    points = " ".join(f"{LEFT + x * unit:.1f},{y:.0f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{COLOURS[kind]}" opacity="0.3"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{INK}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _key(place: int, kind: str) -> str:
    x, y = LEFT + 130 * place, 18 + 2 * TALL + GAP + 22
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="11" height="11" rx="2" fill="{COLOURS[kind]}"/>{_text(x + 17, y + 10, WORDS[kind])}'
