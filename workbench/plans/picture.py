"""A plan as a small SVG for a model card: teacher blocks above, student blocks below, spans
between. No library, no fonts of its own.

The app and the notebook draw theirs with `charts.plan_picture_chart`, which answers to the pointer.
A file on the Hub cannot, and a build needs no Vega for it (docs/decisions).
"""

from __future__ import annotations

from html import escape

from ..records import Plan, Span, StackInfo, Teacher
from .describe_span import span_words

WIDTH, LEFT = 960.0, 64.0  # pixels
BLOCK = 18.0  # height of a row of blocks
TEACHER_TOP = 18.0
STUDENT_TOP = TEACHER_TOP + BLOCK + 46.0
BOTTOM = STUDENT_TOP + BLOCK
COLOURS = {"keep": "#3a7ca5", "drop": "#d1495b", "merge": "#e9a03b", "single": "#7a5195"}
WORDS = {"keep": "kept", "drop": "dropped", "merge": "several in one", "single": "single-stream"}
INK = "#7d8590"  # readable on white and on black


def picture(plan: Plan, teacher: Teacher) -> str:
    """The SVG's text. Stacks follow one another; blocks are as wide as the room allows."""
    unit = (WIDTH - LEFT) / max(sum(stack.depth for stack in teacher.stacks), 1)
    shapes: list[str] = []
    offset = 0  # blocks of the stacks before
    for stack in teacher.stacks:
        shapes += _stack_shapes(stack, plan.stacks[stack.path], offset, unit)
        offset += stack.depth
    shapes.append(_text(LEFT - 8, TEACHER_TOP + BLOCK / 2 + 4, "teacher", "end"))
    shapes.append(_text(LEFT - 8, STUDENT_TOP + BLOCK / 2 + 4, "student", "end"))
    kinds = _kinds(plan)
    shown = [kind for kind in COLOURS if kind in kinds]
    shapes += [_key(number, kind) for number, kind in enumerate(shown)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {BOTTOM + 40:.0f}" '
        'font-family="sans-serif" font-size="11">\n'
    )
    return head + "\n".join(shapes) + "\n</svg>\n"


def _stack_shapes(stack: StackInfo, spans: list[Span], offset: int, unit: float) -> list[str]:
    """One stack: its title, teacher blocks, ribbons and student blocks."""
    title = f"{stack.path}: {stack.depth} → {len(spans)} blocks"
    shapes = [_text(LEFT + offset * unit, 11, title)]
    student = offset + (stack.depth - len(spans)) / 2  # the student's row is centred below
    for number, span in enumerate(spans):
        kind = _student_kind(span)
        for block in range(span.first, span.last + 1):
            mark = _teacher_kind(block, span)
            about = f"{stack.path} {block}: {WORDS[mark]}"
            shapes.append(_block(offset + block, TEACHER_TOP, unit, mark, about))
        begin = offset + span.first
        shapes.append(_ribbon(begin, begin + len(span), student + number, unit, kind))
        about = f"student block {number}: {_made_of(span)}"
        shapes.append(_block(student + number, STUDENT_TOP, unit, kind, about))
        centre = LEFT + (student + number + 0.5) * unit
        if span.drop:
            shapes.append(_text(centre, BOTTOM + 11, "−", "middle"))
        if span.rank:
            shapes.append(_text(centre, STUDENT_TOP - 4, f"r{span.rank}", "middle"))
    return shapes


def _kinds(plan: Plan) -> set[str]:
    """The colours that a plan's picture has."""
    kinds: set[str] = set()
    for spans in plan.stacks.values():
        for span in spans:
            kinds.add(_student_kind(span))
            kinds |= {_teacher_kind(block, span) for block in range(span.first, span.last + 1)}
    return kinds


def _teacher_kind(block: int, span: Span) -> str:
    if block not in span.source:
        return "drop"
    return "merge" if len(span.source) > 1 else "keep"


def _student_kind(span: Span) -> str:
    if span.stream == "single":
        return "single"
    return "merge" if len(span.source) > 1 else "keep"


def _made_of(span: Span) -> str:
    blocks = f"of {span.first}" if len(span) == 1 else f"of {span.first} to {span.last}"
    return ", ".join([blocks, *span_words(span)])


def _block(at: float, top: float, unit: float, kind: str, about: str) -> str:
    x = LEFT + (at + 0.05) * unit
    return (
        f'<rect x="{x:.1f}" y="{top:.0f}" width="{unit * 0.9:.1f}" height="{BLOCK:.0f}" rx="2" '
        f'fill="{COLOURS[kind]}"><title>{escape(about)}</title></rect>'
    )


def _ribbon(first: float, end: float, to: float, unit: float, kind: str) -> str:
    """From the teacher blocks first..end-1 down to the student block at `to`."""
    top = TEACHER_TOP + BLOCK + 2
    low = STUDENT_TOP - 2
    corners = ((first + 0.05, top), (end - 0.05, top), (to + 0.95, low), (to + 0.05, low))
    points = " ".join(f"{LEFT + x * unit:.1f},{y:.0f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{COLOURS[kind]}" opacity="0.3"/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} fill="{INK}" text-anchor="{anchor}">{escape(text)}</text>'


def _key(number: int, kind: str) -> str:
    """An entry of the key below the picture."""
    x = LEFT + 130 * number
    y = BOTTOM + 22
    square = f'<rect x="{x:.0f}" y="{y:.0f}" width="11" height="11" rx="2" fill="{COLOURS[kind]}"/>'
    return square + _text(x + 17, y + 10, WORDS[kind])
