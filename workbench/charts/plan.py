"""The plan as a picture: teacher blocks above, student blocks below, spans between; under the map,
or alone (app, notebook, card).
"""

from __future__ import annotations

from typing import Any

import altair as alt

from ..records import Plan, Span, Teacher
from .axis import COLOURS, GAP, WIDTH, Rows, block_scale, offsets, titles

MEANING = {"keep": "kept", "drop": "dropped", "merge": "averaged", "single": "single stream"}


def plan_rows(plan: Plan, teacher: Teacher) -> dict[str, Rows]:
    """The plan as a picture: `marks` (teacher blocks), `ribbons` (spans), `student` (student
    blocks, centred below).
    """
    start = offsets(teacher)
    out: dict[str, Rows] = {"marks": [], "ribbons": [], "student": []}
    for stack in teacher.stacks:
        spans = plan.stacks[stack.path]
        left = start[stack.path] + (stack.depth - len(spans)) / 2
        for number, span in enumerate(spans):
            begin, x, kind = start[stack.path] + span.first, left + number, kind_of(span)
            out["marks"] += [
                mark_row(start[stack.path], stack.path, block, span, number)
                for block in range(span.first, span.last + 1)
            ]
            out["ribbons"] += [
                {"span": f"{stack.path}:{number}", "y": y, "from": a, "to": b, "kind": kind}
                for y, a, b in (
                    (0, begin + GAP, begin + len(span) - GAP),
                    (1, x + GAP, x + 1 - GAP),
                )
            ]
            out["student"].append(
                {
                    "left": x + GAP,
                    "right": x + 1 - GAP,
                    "middle": x + 0.5,
                    "stack": stack.path,
                    "student": number,
                    "kind": kind,
                    "less": less(span),
                    "made of": f"{stack.path} {made_of(span)}",
                }
            )
    return out


def kind_of(span: Span) -> str:
    """What stands out about a student block."""
    return (
        "single"
        if span.stream == "single"
        else "merge"
        if span.init == "mean" and len(span) > 1
        else "keep"
    )


def less(span: Span) -> str:
    """A minus where parts are dropped, with their number where several are."""
    return f"−{len(span.drop) if len(span.drop) > 1 else ''}" if span.drop else ""


def mark_row(start: int, path: str, block: int, span: Span, number: int) -> dict[str, Any]:
    mark = "drop" if block not in span.source else "merge" if len(span.source) > 1 else "keep"
    at = start + block
    return {
        "at": at,
        "end": at + 1,
        "left": at + GAP,
        "right": at + 1 - GAP,
        "stack": path,
        "block": block,
        "mark": mark,
        "glyph": {"keep": "", "drop": "✕", "merge": "+"}[mark],
        "student": number,
        "selected": False,
    }


def made_of(span: Span) -> str:
    """A span in words: `4-6, mean, gain 3`."""
    words = [f"{span.first}" if len(span) == 1 else f"{span.first}-{span.last}"]
    if len(span) > 1:
        words.append(span.init)
    if span.gain != 1:
        words.append(f"gain {span.gain:g}")
    if span.stream:
        words.append(f"{span.stream} stream")
    return ", ".join(words + [f"without {part}" for part in span.drop])


# --- under the map --------------------------------------------------------------------------------


def plan_views(teacher: Teacher, x: alt.X, text: str, width: int) -> list[Any]:
    """Teacher blocks with their marks, ribbons, student blocks."""
    blocks = strip(teacher, "marks") + glyphs(text) + chosen(x) + caption("teacher")
    student = strip(teacher, "student") + minuses() + caption("student")
    return [
        blocks.properties(width=width, height=24),
        ribbons(teacher).properties(width=width, height=46),
        student.properties(width=width, height=24),
    ]


def colour_of(field: str, legend: alt.Legend | None = None) -> alt.Color:
    return alt.Color(
        f"{field}:N",
        scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=legend,
    )


def strip(teacher: Teacher, name: str) -> alt.Chart:
    """A row of blocks: the teacher's, coloured by mark, or the student's, coloured by what they are
    made of.
    """
    tips = (
        ["stack:N", "block:Q", "mark:N", alt.Tooltip("student:Q", title="student block")]
        if name == "marks"
        else [alt.Tooltip("student:Q", title="student block"), "made of:N"]
    )
    return (
        alt.Chart(alt.NamedData(name=name))
        .mark_rect(cornerRadius=2)
        .encode(
            alt.X("left:Q", scale=block_scale(teacher), axis=None),
            alt.X2("right:Q"),
            colour_of("mark" if name == "marks" else "kind"),
            y=alt.value(0),
            y2=alt.value(24),
            tooltip=tips,
        )
    )


def glyphs(text: str) -> alt.Chart:
    """Marks as signs too, for those who do not see the colours; or block numbers, where no map
    above has them.
    """
    return (
        alt.Chart(alt.NamedData(name="marks"))
        .transform_calculate(mid="datum.at + 0.5")
        .mark_text(color="white", fontWeight="bold")
        .encode(alt.X("mid:Q", axis=None), y=alt.value(12), text=text)
    )


def minuses() -> alt.Chart:
    """Where parts are dropped."""
    return (
        alt.Chart(alt.NamedData(name="student"))
        .mark_text(color="white", fontWeight="bold")
        .encode(alt.X("middle:Q", axis=None), y=alt.value(12), text="less:N")
    )


def caption(text: str) -> alt.Chart:
    """Left of a strip."""
    return (
        alt.Chart(alt.Data(values=[{}]))
        .mark_text(align="right", text=text)
        .encode(x=alt.value(-8), y=alt.value(12))
    )


def chosen(x: alt.X) -> alt.Chart:
    """The selected blocks, outlined."""
    return (
        alt.Chart(alt.NamedData(name="marks"))
        .transform_filter("datum.selected")
        .mark_rect(fillOpacity=0.14, fill="#ffffff", stroke="#ff3bd4", strokeWidth=2)
        .encode(x, alt.X2("end:Q"))
    )


def ribbons(teacher: Teacher) -> alt.Chart:
    """From each span of teacher blocks down to its student block."""
    return (
        alt.Chart(alt.NamedData(name="ribbons"))
        .mark_area(orient="horizontal", interpolate="monotone", opacity=0.35)
        .encode(
            alt.X("from:Q", scale=block_scale(teacher), axis=None),
            alt.X2("to:Q"),
            alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, 0], nice=False)),
            colour_of("kind"),
            alt.Detail("span:N"),
        )
    )


# --- alone ----------------------------------------------------------------------------------------


def plan_picture_rows(plan: Plan, teacher: Teacher) -> dict[str, Rows]:
    """`plan_rows`, with the names of the stacks and their depths before and after: all that the
    picture needs.
    """
    start = offsets(teacher)
    stacks = [
        {
            "at": start[s.path],
            "blocks": s.depth,
            "path": s.path,
            "kind": s.kind,
            "name": f"{s.path}: {s.depth} → {len(plan.stacks[s.path])} blocks",
        }
        for s in teacher.stacks
    ]
    return plan_rows(plan, teacher) | {"stacks": stacks}


def plan_picture_chart(rows: dict[str, Rows], *, width: int = WIDTH) -> alt.VConcatChart:
    """A picture of a plan on its own, with numbers and a legend; each stack as wide as its share of
    the blocks.
    """
    total = sum(row["blocks"] for row in rows["stacks"])
    scale = alt.Scale(domain=[0, total], nice=False)
    data = {key: rows[key] for key in ("marks", "ribbons", "student")}
    axis: dict[str, Any] = {"scale": scale, "axis": None}
    every = 1 if width / total >= 15 else 5  # numbers need room
    names = titles(
        [(row["at"], row["blocks"], row["name"]) for row in rows["stacks"]],
        alt.X("at:Q", **axis),
        width,
    )

    def blocks(name: str, field: str, number: str, tips: list[Any]) -> alt.LayerChart:
        legend = (
            alt.Legend(title=None, orient="bottom", columns=4, labelLimit=300, labelExpr=meaning())
            if name == "marks"
            else None
        )
        bars = (
            alt.Chart(alt.NamedData(name=name))
            .mark_rect(cornerRadius=2)
            .encode(
                alt.X("left:Q", **axis),
                alt.X2("right:Q"),
                colour_of(field, legend),
                y=alt.value(0),
                y2=alt.value(24),
                tooltip=tips,
            )
        )
        text = (
            alt.Chart(alt.NamedData(name=name))
            .transform_calculate(middle="(datum.left + datum.right) / 2")
            .transform_filter(f"datum.{number} % {every} == 0")
            .mark_text(color="white", fontSize=9)
            .encode(alt.X("middle:Q", **axis), y=alt.value(12), text=f"{number}:Q")
        )
        return bars + text + caption("teacher" if name == "marks" else "student")

    notes = (
        alt.Chart(alt.NamedData(name="student"))
        .mark_text(fontSize=10, fontWeight="bold", color=COLOURS["drop"])
        .encode(alt.X("middle:Q", **axis), y=alt.value(6), text="less:N", tooltip=["made of:N"])
    )
    band = (
        alt.Chart(alt.NamedData(name="ribbons"))
        .mark_area(orient="horizontal", interpolate="monotone", opacity=0.35)
        .encode(
            alt.X("from:Q", **axis),
            alt.X2("to:Q"),
            alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, 0], nice=False)),
            colour_of("kind"),
            alt.Detail("span:N"),
        )
    )
    above = blocks(
        "marks",
        "mark",
        "block",
        ["stack:N", "block:Q", "mark:N", alt.Tooltip("student:Q", title="student block")],
    )
    below = blocks(
        "student", "kind", "student", [alt.Tooltip("student:Q", title="student block"), "made of:N"]
    )
    views = [(names, 16), (above, 24), (band, 60), (below, 24)]
    if any(row["less"] for row in rows["student"]):
        views.append((notes, 10))
    chart = alt.vconcat(
        *(view.properties(width=width, height=tall) for view, tall in views),
        spacing=2,
        datasets=data,
        usermeta={"room": 90, "legend": "bottom"},
    )
    return chart.resolve_scale(x="shared", color="shared").configure_view(stroke=None)


def meaning() -> str:
    """Vega: the legend's words."""
    words = "".join(f"datum.value == '{mark}' ? '{word}' : " for mark, word in MEANING.items())
    return f"{words}datum.value"
