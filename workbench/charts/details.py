"""One block looked at closely: its scores over timesteps under every edit, and which of its parts
carry its sensitivity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt

from ..records import SensitivityMap, Teacher
from .axis import (
    BAR,
    BESIDE,
    WIDTH,
    Rows,
    block_axis,
    block_scale,
    block_title,
    label,
    offsets,
    placed,
    stack_titles,
    ticks,
    two_scales,
)
from .maps import READING, Weights, bar_rows, reading

PART = "drop:"
Scores = Mapping[str, Mapping[tuple[str, int], float]]  # edit -> (stack, block) -> score


# --- a block over the timesteps -------------------------------------------------------------------


def profile_rows(measured: SensitivityMap, stack: str, block: int) -> Rows:
    """A block's score under each edit at each timestep, with `low` and `high` a standard error
    away.
    """
    out: Rows = []
    for row in measured.rows:
        if (
            (row.stack, row.block) == (stack, block)
            and row.timestep is not None
            and row.last is None
        ):
            error = row.stderr or 0.0
            out.append(
                {
                    "edit": row.edit,
                    "timestep": row.timestep,
                    "score": row.score,
                    "low": max(row.score - error, row.score * 0.02),
                    "high": row.score + error,
                    "reading": reading(row.score, row.stderr),
                }
            )
    return out


def profile_chart(
    rows: Rows, *, log: bool = True, unit: str = "", width: int = 420
) -> alt.LayerChart:
    """Score over timestep, noise on the left as in sampling; the band is one standard error."""
    edits = list(dict.fromkeys(row["edit"] for row in rows))
    scale = (
        alt.Scale(type="log", nice=False)
        if log and all(row["score"] > 0 for row in rows)
        else alt.Scale(zero=True)
    )
    times = sorted({row["timestep"] for row in rows})
    base = alt.Chart(alt.Data(values=rows), width=width, height=210).encode(
        alt.X(
            "timestep:Q",
            title="timestep (1000 = noise)",
            scale=alt.Scale(reverse=True, nice=False),
            axis=alt.Axis(grid=False, values=times, format=".0f", labelOverlap=True),
        )
    )
    colour = alt.Color(
        "edit:N",
        title=None,
        sort=edits,
        scale=alt.Scale(scheme="tableau10" if len(edits) <= 10 else "tableau20"),
        legend=alt.Legend(orient="top", columns=4, labelLimit=160, symbolOpacity=1),
    )
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
            "edit:N",
            alt.Tooltip("timestep:Q", format=".0f"),
            alt.Tooltip("reading:N", title=unit or "score"),
        ],
    )
    return band + lines


# --- the parts of a block -------------------------------------------------------------------------


def part_rows(bars: Rows, at: int, parameters: Mapping[str, int] | None = None) -> Rows:
    """From `bar_rows`: what dropping each part of block `at` scores, the whole block first.
    `parameters`: part -> its size.
    """
    found = [
        row
        for row in bars
        if row["at"] == at and (row["edit"] == "drop" or row["edit"].startswith(PART))
    ]
    out: Rows = []
    for row in sorted(found, key=lambda r: (r["edit"] != "drop", -r["score"])):
        part = row["edit"].removeprefix(PART) if row["edit"] != "drop" else "whole block"
        error = row["high"] - row["score"] if "high" in row else None
        size = (parameters or {}).get(part)
        out.append(
            {
                "part": part,
                "score": row["score"],
                "low": row.get("low"),
                "high": row.get("high"),
                "reading": reading(row["score"], error),
            }
            | ({"parameters": size} if size else {})
        )
    return out


def part_chart(rows: Rows, *, weighting: str = "weighted", width: int = 360) -> alt.LayerChart:
    """Which part carries the block: bars from zero, with error bars."""
    order = [row["part"] for row in rows]
    tips: list[Any] = ["part:N", alt.Tooltip("reading:N", title=f"score, {weighting}")]
    tips += (
        [alt.Tooltip("parameters:Q", format=",")]
        if any("parameters" in row for row in rows)
        else []
    )
    base = alt.Chart(alt.Data(values=rows), width=width, height=alt.Step(24)).encode(
        alt.Y("part:N", sort=order, title=None), tooltip=tips
    )
    bars = base.mark_bar(height=14).encode(
        alt.X(
            "score:Q",
            title=f"score without it, {weighting} (higher = keep)",
            axis=alt.Axis(format=".3~g", tickCount=5),
        ),
        color=alt.condition("datum.part == 'whole block'", alt.value("#52606b"), alt.value(BAR)),
    )
    errors = (
        base.transform_filter("isValid(datum.high)")
        .mark_rule(strokeWidth=1.5, color="#52606b")
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
    scales = "scales['*']"
    order = list(dict.fromkeys(row["edit"] for row in rows))
    positive = all(row["score"] > 0 for row in rows)
    x = alt.X(
        "at:Q",
        scale=block_scale(teacher),
        title=None,
        axis=block_axis(teacher, title=block_title(teacher)),
    )
    params = [
        alt.param(name="colour", value="log" if log and positive else "linear"),
        alt.param(name="scales", value={"*": two_scales([row["score"] for row in rows])}),
    ]
    start = offsets(teacher)
    path = {
        at: (s.path, at - start[s.path])
        for s in teacher.stacks
        for at in range(start[s.path], start[s.path] + s.depth)
    }
    data = [
        row
        | {
            "end": row["at"] + 1,
            "stack": path[row["at"]][0],
            "block": path[row["at"]][1],
            "stderr": row["high"] - row["score"] if "high" in row else None,
        }
        for row in rows
    ]
    chart = (
        alt.Chart(alt.Data(values=data), width=width, height=alt.Step(20))
        .transform_calculate(shade=placed("datum.score", scales), reading=READING)
        .mark_rect()
        .encode(
            x,
            alt.X2("end:Q"),
            alt.Y("edit:N", sort=order, title=None, axis=alt.Axis(labelLimit=130)),
            alt.Color(
                "shade:Q",
                scale=alt.Scale(scheme="viridis", domain=[0, 1]),
                legend=alt.Legend(
                    title=["score, " + weighting, direction],
                    gradientLength=100,
                    values=ticks(scales),
                    labelExpr=label(scales),
                ),
            ),
            tooltip=[
                "stack:N",
                "block:Q",
                "edit:N",
                alt.Tooltip("reading:N", title=f"score, {weighting}"),
            ],
        )
        .add_params(*params)
    )
    axis = alt.X("at:Q", scale=block_scale(teacher), axis=None)
    above = [stack_titles(teacher, axis, width)] if len(teacher.stacks) > 1 else []
    return (
        alt.vconcat(*above, chart, spacing=2, usermeta=BESIDE)
        .resolve_scale(x="shared")
        .configure_view(stroke=None)
    )
