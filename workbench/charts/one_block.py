"""Charts of one block: its scores over timesteps under every edit, and the scores of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from ..records import SensitivityMap, Teacher
from .axis import (
    BAR,
    BESIDE,
    INK,
    WIDTH,
    Rows,
    block_x,
    either_colour,
    first_values,
    label,
    offsets,
    placed,
    stack_titles,
    ticks,
    two_scales,
)
from .heatmap import READING
from .map_rows import ALL_EDITS, Weights, bar_rows
from .shapes import reading

PART = "drop:"
WHOLE = "whole block"
LEAST_SHARE = 0.02  # of the score: the band of a log scale ends above 0


# --- a block over the timesteps -------------------------------------------------------------------


def profile_rows(measured: SensitivityMap, stack: str, block: int) -> Rows:
    """A block's score under each edit at each timestep, with `low` and `high` a standard error
    away.
    """
    rows = []
    for row in measured.rows:
        here = (row.stack, row.block) == (stack, block)
        if here and row.timestep is not None and row.last is None:
            error = row.stderr or 0.0
            rows.append(
                {
                    "edit": row.edit,
                    "timestep": row.timestep,
                    "score": row.score,
                    "low": max(row.score - error, row.score * LEAST_SHARE),
                    "high": row.score + error,
                    "reading": reading(row.score, row.stderr),
                }
            )
    return rows


def profile_chart(
    rows: Rows, *, log: bool = True, unit: str = "", width: int = 420
) -> alt.LayerChart:
    """Score over timestep, noise on the left as in sampling; the band is one standard error."""
    scale = alt.Scale(zero=True)
    if log and all(row["score"] > 0 for row in rows):
        scale = alt.Scale(type="log", nice=False)
    times = sorted({row["timestep"] for row in rows})
    base = alt.Chart(alt.Data(values=rows), width=width, height=210).encode(
        alt.X(
            "timestep:Q",
            title="timestep (1000 = noise)",
            scale=alt.Scale(reverse=True, nice=False),
            axis=alt.Axis(grid=False, values=times, format=".0f", labelOverlap=True),
        )
    )
    colour = edit_colour(first_values(rows, "edit"))
    axis = alt.Axis(format=".3~g", tickCount=5)
    band = base.mark_area(opacity=0.2).encode(
        colour,
        alt.Y("low:Q", scale=scale, title="score (higher = keep)", axis=axis),
        alt.Y2("high:Q"),
    )
    lines = base.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=28, filled=True)).encode(
        colour,
        alt.Y("score:Q", scale=scale, axis=axis),
        tooltip=[
            alt.Tooltip("edit:N"),
            alt.Tooltip("timestep:Q", format=".0f"),
            alt.Tooltip("reading:N", title=unit or "score"),
        ],
    )
    return band + lines


def edit_colour(edits: list[str]) -> alt.Color:
    return alt.Color(
        "edit:N",
        title=None,
        sort=edits,
        scale=alt.Scale(scheme="tableau10" if len(edits) <= 10 else "tableau20"),
        legend=alt.Legend(orient="top", columns=4, labelLimit=160, symbolOpacity=1),
    )


# --- the parts of a block -------------------------------------------------------------------------


def part_rows(bars: Rows, at: int, parameters: Mapping[str, int] | None = None) -> Rows:
    """From `bar_rows`: what dropping each part of block `at` scores, the whole block first.
    `parameters`: part -> its size.
    """
    sizes = parameters or {}
    of_block = [row for row in bars if row["at"] == at]
    whole = [row for row in of_block if row["edit"] == "drop"]
    parts = [row for row in of_block if row["edit"].startswith(PART)]
    parts.sort(key=lambda row: -row["score"])
    return [part_row(row, sizes) for row in whole + parts]


def part_row(bar: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    part = WHOLE if bar["edit"] == "drop" else bar["edit"].removeprefix(PART)
    error = bar["high"] - bar["score"] if "high" in bar else None
    row = {
        "part": part,
        "score": bar["score"],
        "low": bar.get("low"),
        "high": bar.get("high"),
        "reading": reading(bar["score"], error),
    }
    if sizes.get(part):
        row["parameters"] = sizes[part]
    return row


def part_chart(rows: Rows, *, weighting: str = "weighted", width: int = 360) -> alt.LayerChart:
    """Which part carries the block: bars from zero, with error bars."""
    tips: list[Any] = [alt.Tooltip("part:N"), alt.Tooltip("reading:N", title=f"score, {weighting}")]
    if any("parameters" in row for row in rows):
        tips.append(alt.Tooltip("parameters:Q", format=","))
    order = [row["part"] for row in rows]
    base = alt.Chart(alt.Data(values=rows), width=width, height=alt.Step(24)).encode(
        alt.Y("part:N", sort=order, title=None), tooltip=tips
    )
    bars = base.mark_bar(height=14).encode(
        alt.X(
            "score:Q",
            title=f"score without it, {weighting} (higher = keep)",
            axis=alt.Axis(format=".3~g", tickCount=5),
        ),
        either_colour(f"datum.part == '{WHOLE}'", INK, BAR),
    )
    errors = (
        base.transform_filter("isValid(datum.high)")
        .mark_rule(strokeWidth=1.5, color=INK)
        .encode(alt.X("low:Q"), alt.X2("high:Q"))
    )
    return bars + errors


# --- every edit of every block --------------------------------------------------------------------


def breakdown_rows(measured: SensitivityMap, teacher: Teacher, weights: Weights) -> Rows:
    """Edits x blocks, each over all timesteps: where parts matter and where they do not."""
    return [row | {"line": row["edit"]} for row in bar_rows(measured, teacher, weights)]


def breakdown_chart(
    teacher: Teacher,
    rows: Rows,
    *,
    log: bool = True,
    weighting: str = "weighted",
    direction: str = "higher = keep",
    width: int = WIDTH,
) -> alt.VConcatChart:
    """All edits under one another, on one colour scale: a block's column shows which of its parts
    carries it.
    """
    scales = f"scales['{ALL_EDITS}']"
    log = log and any(row["score"] > 0 for row in rows)  # the others share the lowest colour
    legend = alt.Legend(
        title=["score, " + weighting, direction],
        gradientLength=100,
        values=ticks(scales),
        labelExpr=label(scales),
    )
    tips = [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("edit:N"),
        alt.Tooltip("reading:N", title=f"score, {weighting}"),
    ]
    edit = alt.Y(
        "edit:N", sort=first_values(rows, "edit"), title=None, axis=alt.Axis(labelLimit=130)
    )
    shade = alt.Color("shade:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), legend=legend)
    together = {ALL_EDITS: two_scales([row["score"] for row in rows])}
    chart = (
        alt.Chart(alt.Data(values=cells(rows, teacher)), width=width, height=alt.Step(20))
        .transform_calculate(shade=placed("datum.score", scales), reading=READING)
        .mark_rect()
        .encode(block_x(teacher), alt.X2("end:Q"), edit, shade, tooltip=tips)
        .add_params(
            alt.param(name="colour", value="log" if log else "linear"),
            alt.param(name="scales", value=together),
        )
    )
    return (
        alt.vconcat(*stack_titles(teacher, width), chart, spacing=2, usermeta=BESIDE)
        .resolve_scale(x="shared")
        .configure_view(stroke=None)
    )


def cells(rows: Rows, teacher: Teacher) -> Rows:
    """The rows with what the chart's tooltips need: stack, block, standard error."""
    place: dict[int, tuple[str, int]] = {}
    for path, start in offsets(teacher).items():
        for block in range(teacher.stack(path).depth):
            place[start + block] = (path, block)
    found = []
    for row in rows:
        stack, block = place[row["at"]]
        error = row["high"] - row["score"] if "high" in row else None
        found.append({**row, "end": row["at"] + 1, "stack": stack, "block": block, "stderr": error})
    return found
