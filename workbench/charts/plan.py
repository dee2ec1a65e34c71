"""The plan as a picture: teacher blocks above, student blocks below, spans between; under the map,
or alone (app, notebook, card).
"""

from __future__ import annotations

from typing import Any

import altair as alt

from ..records import Plan, Span, Teacher
from .axis import COLOURS, GAP, WIDTH, Rows, block_scale, offsets, titles

MEANING = {"keep": "kept", "drop": "dropped", "merge": "averaged", "single": "single stream"}
GLYPHS = {"keep": "", "drop": "✕", "merge": "+"}
HEIGHT = 24  # pixels of a strip of blocks
ROOM_FOR_NUMBER = 15  # pixels of a block whose number fits; narrower ones show every fifth


def plan_rows(plan: Plan, teacher: Teacher) -> dict[str, Rows]:
    """The plan as a picture: `marks` (teacher blocks), `ribbons` (spans), `student` (student
    blocks, centred below).
    """
    starts = offsets(teacher)
    rows: dict[str, Rows] = {"marks": [], "ribbons": [], "student": []}
    for stack in teacher.stacks:
        spans = plan.stacks[stack.path]
        start = starts[stack.path]
        left = start + (stack.depth - len(spans)) / 2
        for number, span in enumerate(spans):
            for block in range(span.first, span.last + 1):
                rows["marks"].append(mark_row(start, stack.path, block, span, number))
            rows["ribbons"] += ribbon_rows(start, stack.path, span, number, left + number)
            rows["student"].append(student_row(stack.path, span, number, left + number))
    return rows


def mark_row(start: int, path: str, block: int, span: Span, number: int) -> dict[str, Any]:
    """A teacher block with its mark: kept, dropped or averaged."""
    at = start + block
    mark = mark_of(block, span)
    return {
        "at": at,
        "end": at + 1,
        "left": at + GAP,
        "right": at + 1 - GAP,
        "stack": path,
        "block": block,
        "mark": mark,
        "glyph": GLYPHS[mark],
        "student": number,
        "selected": False,
    }


def mark_of(block: int, span: Span) -> str:
    if block not in span.source:
        return "drop"
    return "merge" if len(span.source) > 1 else "keep"


def ribbon_rows(start: int, path: str, span: Span, number: int, x: float) -> Rows:
    """The two ends of a ribbon: over its teacher blocks, and over its student block at `x`."""
    begin = start + span.first
    common = {"span": f"{path}:{number}", "kind": kind_of(span)}
    above = {"y": 0, "from": begin + GAP, "to": begin + len(span) - GAP}
    below = {"y": 1, "from": x + GAP, "to": x + 1 - GAP}
    return [common | above, common | below]


def student_row(path: str, span: Span, number: int, x: float) -> dict[str, Any]:
    return {
        "left": x + GAP,
        "right": x + 1 - GAP,
        "middle": x + 0.5,
        "stack": path,
        "student": number,
        "kind": kind_of(span),
        "less": less(span),
        "made of": f"{path} {made_of(span)}",
    }


def kind_of(span: Span) -> str:
    """What stands out about a student block."""
    if span.stream == "single":
        return "single"
    return "merge" if span.init == "mean" and len(span) > 1 else "keep"


def less(span: Span) -> str:
    """A minus where parts are dropped, with their number where several are; r and the rank where
    the modulation is in two factors.
    """
    marks = []
    if span.drop:
        marks.append(f"−{len(span.drop)}" if len(span.drop) > 1 else "−")
    if span.rank:
        marks.append(f"r{span.rank}")
    return " ".join(marks)


def made_of(span: Span) -> str:
    """A span in words: `4-6, mean, gain 3`."""
    words = [f"{span.first}" if len(span) == 1 else f"{span.first}-{span.last}"]
    if len(span) > 1:
        words.append(span.init)
    if span.gain != 1:
        words.append(f"gain {span.gain:g}")
    if span.stream:
        words.append(f"{span.stream} stream")
    words += [f"without {part}" for part in span.drop]
    if span.rank:
        words.append(f"modulation rank {span.rank}")
    return ", ".join(words)


# --- what both pictures are made of ---------------------------------------------------------------

TEACHER_TIPS = [
    alt.Tooltip("stack:N"),
    alt.Tooltip("block:Q"),
    alt.Tooltip("mark:N"),
    alt.Tooltip("student:Q", title="student block"),
]
STUDENT_TIPS = [alt.Tooltip("student:Q", title="student block"), alt.Tooltip("made of:N")]


def strip(name: str, scale: alt.Scale, legend: alt.Legend | None = None) -> alt.Chart:
    """A row of blocks: `marks`, the teacher's, coloured by mark; or `student`, coloured by what
    they are made of.
    """
    teacher = name == "marks"
    return (
        alt.Chart(alt.NamedData(name=name))
        .mark_rect(cornerRadius=2)
        .encode(
            alt.X("left:Q", scale=scale, axis=None),
            alt.X2("right:Q"),
            colour_of("mark" if teacher else "kind", legend),
            alt.YValue(0),
            alt.Y2Value(HEIGHT),
            tooltip=TEACHER_TIPS if teacher else STUDENT_TIPS,
        )
    )


def colour_of(field: str, legend: alt.Legend | None = None) -> alt.Color:
    return alt.Color(
        f"{field}:N",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=legend,
    )


def ribbons(scale: alt.Scale) -> alt.Chart:
    """From each span of teacher blocks down to its student block."""
    return (
        alt.Chart(alt.NamedData(name="ribbons"))
        .mark_area(orient="horizontal", interpolate="monotone", opacity=0.35)
        .encode(
            alt.X("from:Q", scale=scale, axis=None),
            alt.X2("to:Q"),
            alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, 0], nice=False)),
            colour_of("kind"),
            alt.Detail("span:N"),
        )
    )


def caption(text: str) -> alt.Chart:
    """Left of a strip."""
    return (
        alt.Chart(alt.Data(values=[{}]))
        .mark_text(align="right", text=text)
        .encode(alt.XValue(-8), alt.YValue(HEIGHT / 2))
    )


# --- under the map --------------------------------------------------------------------------------


def plan_views(teacher: Teacher, text: str, width: int) -> list[Any]:
    """Teacher blocks with their marks, ribbons, student blocks; `text`: what stands in a teacher
    block."""
    scale = block_scale(teacher)
    x = alt.X("at:Q", scale=scale, title=None, axis=None)
    above = strip("marks", scale) + glyphs(text) + chosen(x) + caption("teacher")
    below = strip("student", scale) + minuses() + caption("student")
    return [
        above.properties(width=width, height=HEIGHT),
        ribbons(scale).properties(width=width, height=46),
        below.properties(width=width, height=HEIGHT),
    ]


def glyphs(text: str) -> alt.Chart:
    """Marks as signs too, for those who do not see the colours; or block numbers, where no map
    above has them.
    """
    return (
        alt.Chart(alt.NamedData(name="marks"))
        .transform_calculate(mid="datum.at + 0.5")
        .mark_text(color="white", fontWeight="bold")
        .encode(alt.X("mid:Q", axis=None), alt.YValue(HEIGHT / 2), alt.Text(text))
    )


def minuses() -> alt.Chart:
    """Where parts are dropped."""
    return (
        alt.Chart(alt.NamedData(name="student"))
        .mark_text(color="white", fontWeight="bold")
        .encode(alt.X("middle:Q", axis=None), alt.YValue(HEIGHT / 2), alt.Text("less:N"))
    )


def chosen(x: alt.X) -> alt.Chart:
    """The selected blocks, outlined."""
    return (
        alt.Chart(alt.NamedData(name="marks"))
        .transform_filter("datum.selected")
        .mark_rect(fillOpacity=0.14, fill="#ffffff", stroke="#ff3bd4", strokeWidth=2)
        .encode(x, alt.X2("end:Q"))
    )


# --- alone ----------------------------------------------------------------------------------------


def plan_picture_rows(plan: Plan, teacher: Teacher) -> dict[str, Rows]:
    """`plan_rows`, with the names of the stacks and their depths before and after: all that the
    picture needs.
    """
    starts = offsets(teacher)
    stacks = []
    for stack in teacher.stacks:
        blocks = len(plan.stacks[stack.path])
        stacks.append(
            {
                "at": starts[stack.path],
                "blocks": stack.depth,
                "path": stack.path,
                "kind": stack.kind,
                "name": f"{stack.path}: {stack.depth} → {blocks} blocks",
            }
        )
    return plan_rows(plan, teacher) | {"stacks": stacks}


def plan_picture_chart(rows: dict[str, Rows], *, width: int = WIDTH) -> alt.VConcatChart:
    """A picture of a plan on its own, with numbers and a legend; each stack as wide as its share of
    the blocks.
    """
    total = sum(row["blocks"] for row in rows["stacks"])
    scale = alt.Scale(domain=[0, total], nice=False)
    every = 1 if width / total >= ROOM_FOR_NUMBER else 5
    stacks = [(row["at"], row["blocks"], row["name"]) for row in rows["stacks"]]
    legend = alt.Legend(title=None, orient="bottom", columns=4, labelLimit=300, labelExpr=meaning())
    above = strip("marks", scale, legend) + numbers("marks", "block", every, scale)
    below = strip("student", scale) + numbers("student", "student", every, scale)
    views: list[tuple[Any, int]] = [
        (titles(stacks, alt.X("at:Q", scale=scale, axis=None), width), 16),
        (above + caption("teacher"), HEIGHT),
        (ribbons(scale), 60),
        (below + caption("student"), HEIGHT),
    ]
    if any(row["less"] for row in rows["student"]):
        views.append((notes(scale), 10))
    chart = alt.vconcat(
        *(view.properties(width=width, height=height) for view, height in views),
        spacing=2,
        datasets={name: rows[name] for name in ("marks", "ribbons", "student")},
        usermeta={"room": 90, "legend": "bottom"},
    )
    return chart.resolve_scale(x="shared", color="shared").configure_view(stroke=None)


def numbers(name: str, field: str, every: int, scale: alt.Scale) -> alt.Chart:
    """The numbers of a strip's blocks, or of every n-th."""
    return (
        alt.Chart(alt.NamedData(name=name))
        .transform_calculate(middle="(datum.left + datum.right) / 2")
        .transform_filter(f"datum.{field} % {every} == 0")
        .mark_text(color="white", fontSize=9)
        .encode(
            alt.X("middle:Q", scale=scale, axis=None),
            alt.YValue(HEIGHT / 2),
            alt.Text(f"{field}:Q"),
        )
    )


def notes(scale: alt.Scale) -> alt.Chart:
    """Under the student blocks: a minus where parts are dropped."""
    return (
        alt.Chart(alt.NamedData(name="student"))
        .mark_text(fontSize=10, fontWeight="bold", color=COLOURS["drop"])
        .encode(
            alt.X("middle:Q", scale=scale, axis=None),
            alt.YValue(6),
            alt.Text("less:N"),
            tooltip=[alt.Tooltip("made of:N")],
        )
    )


def meaning() -> str:
    """Vega: the legend's words."""
    words = "".join(f"datum.value == '{mark}' ? '{word}' : " for mark, word in MEANING.items())
    return f"{words}datum.value"
