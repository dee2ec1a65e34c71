"""The sensitivity map: bars per block, block x timestep cells of every edit (one shown at a time),
and the plan beneath.

Three shapes of record are drawn by the same chart, by what a row's `line` is: a timestep; the edit
itself where nothing was measured per timestep (imported tables, finished images); the last block
where rows cover spans (CKA).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any, Literal

import altair as alt

from ..records import Row, SensitivityMap, Teacher
from .axis import (
    BAR,
    WIDTH,
    Rows,
    block_axis,
    block_expression,
    block_scale,
    block_title,
    label,
    offsets,
    placed,
    stack_expression,
    stack_titles,
    ticks,
    two_scales,
)
from .plan import chosen, plan_views

# edit -> timestep -> factor, share of the norm
Weights = Mapping[str, Mapping[float | None, tuple[float, float]]]
Shape = Literal["timesteps", "edits", "spans"]
TITLES = {
    "timesteps": "timestep (1000 = noise)",
    "edits": "edit",
    "spans": "last block of the span",
}


def shape_of(measured: SensitivityMap) -> Shape:
    if any(row.last is not None for row in measured.rows):
        return "spans"
    return "timesteps" if any(row.timestep is not None for row in measured.rows) else "edits"


def time_label(timestep: float | None) -> str:
    return "all" if timestep is None else f"{timestep:.0f}"


def sensitivity_rows(measured: SensitivityMap, teacher: Teacher, edit: str | None = None) -> Rows:
    """One row per cell of one edit or of all: place `at`, `edit`, `line` (see the top), score,
    standard error, flag.
    """
    start, shape = offsets(teacher), shape_of(measured)
    out: Rows = []
    for row in over_timesteps(measured):
        if row.stack not in start or edit not in (None, row.edit):
            continue
        line = (
            time_label(row.timestep)
            if shape == "timesteps"
            else row.edit
            if shape == "edits"
            else str(row.block if row.last is None else row.last)
        )
        cell = {
            "at": start[row.stack] + row.block,
            "edit": row.edit,
            "line": line,
            "score": shorter(row.score),
        }
        cell |= {"stderr": shorter(row.stderr)} if row.stderr is not None else {}
        cell |= {"last": row.last} if shape == "spans" else {}
        out.append(cell | ({"flag": row.flag} if row.flag else {}))
    return out


def over_timesteps(measured: SensitivityMap) -> list[Row]:
    """The rows, those of one span as one: plain means over its timesteps, of errors too (an upper
    bound).
    """
    found: dict[tuple[str, int, int | None, str], list[Row]] = {}
    for row in measured.rows:
        if row.last is None:
            return measured.rows
        found.setdefault((row.stack, row.block, row.last, row.edit), []).append(row)
    return [
        rows[0].model_copy(
            update={
                "timestep": None,
                "score": sum(r.score for r in rows) / len(rows),
                "stderr": None
                if any(r.stderr is None for r in rows)
                else sum(r.stderr or 0.0 for r in rows) / len(rows),
            }
        )
        for rows in found.values()
    ]


def shorter(value: float) -> float:
    """Six digits are enough to look at; 18,000 cells travel to the browser."""
    return float(f"{value:.6g}")


def reading(score: float, stderr: float | None) -> str:
    return f"{score:.3g}" if stderr is None else f"{score:.3g} ± {stderr:.1g}"


def bar_rows(measured: SensitivityMap, teacher: Teacher, weights: Weights) -> Rows:
    """One row per block and edit: its score over the timesteps as `plans.timestep_weights` counts
    them, with an error bar.

    `low` and `high`: a standard error each way, as if the timesteps erred together (they share the
    prompts): an upper bound.
    """
    start = offsets(teacher)
    sums: dict[tuple[str, str, int], list[float]] = {}
    for row in measured.rows:
        if row.last is None and row.stack in start and row.edit in weights:
            factor, share = weights[row.edit][row.timestep]
            total = sums.setdefault((row.edit, row.stack, row.block), [0.0, 0.0, 0.0])
            for place, value in enumerate(
                (factor * row.score, factor * (row.stderr or 0.0), share)
            ):
                total[place] += value
    out: Rows = []
    for (edit, stack, block), (score, error, norm) in sums.items():
        score, error = (score / norm, error / norm) if norm else (0.0, 0.0)
        reach = {"low": shorter(score - error), "high": shorter(score + error)} if error else {}
        out.append({"at": start[stack] + block, "edit": edit, "score": shorter(score)} | reach)
    return out


def bar_scales(bars: Rows) -> dict[str, Any]:
    """Edit -> how its bars lie on the axis (`axis.two_scales`)."""
    return scales_of(
        bars, lambda row: (row.get("low", row["score"]), row.get("high", row["score"]))
    )


def scales_of(rows: Rows, reach: Any = lambda row: ()) -> dict[str, Any]:
    edits = dict.fromkeys(row["edit"] for row in rows)
    by = {edit: [row for row in rows if row["edit"] == edit] for edit in edits}
    return {
        edit: two_scales([r["score"] for r in found], [e for r in found for e in reach(r)])
        for edit, found in by.items()
    }


def weight_rows(weights: Weights) -> Rows:
    """How much each timestep counts (`plans.timestep_weights`): its factor, as a share of the
    largest of its edit.
    """
    out: Rows = []
    for edit, times in weights.items():
        top = max((factor for factor, _ in times.values()), default=0.0) or 1.0
        out += [
            {"edit": edit, "line": time_label(time), "weight": factor / top}
            for time, (factor, _) in times.items()
        ]
    return out


def line_order(cells: Rows) -> list[str]:
    """Timesteps from noise to picture, last blocks from the first, edits as they come."""
    lines = list(dict.fromkeys(row["line"] for row in cells))
    if any(row["line"] == row["edit"] for row in cells):
        return lines
    return (
        sorted(lines, key=int)
        if spans(cells)
        else sorted(lines, key=lambda line: 1.0 if line == "all" else -float(line))
    )


# --- the chart ------------------------------------------------------------------------------------


def sensitivity_chart(
    teacher: Teacher,
    cells: Rows,
    bars: Rows,
    weights: Rows,
    plan: dict[str, Rows] | None,
    *,
    edit: str = "",
    log: bool = True,
    unit: str = "",
    metric: str = "sensitivity",
    direction: str = "higher = keep",
    weighting: str = "weighted",
    toggles: bool = False,
    params: bool = False,
    width: int = WIDTH,
) -> alt.VConcatChart:
    """Bars per block, the map, and the plan beneath, on one block axis. Without cells: the plan
    alone; plan None: the map alone.

    Rows may hold several edits: the parameters `edit` and `colour` say which is shown and on which
    scale, without a new drawing; `toggles` puts controls for them under the chart. With `params`
    the map carries the selections `pick` and `box` (notebooks; the app handles pointers itself).
    """
    x = alt.X("at:Q", scale=block_scale(teacher), title=None, axis=None)
    rows: list[Any] = [stack_titles(teacher, x, width)] if len(teacher.stacks) > 1 else []
    data: dict[str, Any] = dict(plan) if plan is not None else {"marks": []}
    if cells:
        title = [metric, *textwrap.wrap(direction, 18)]
        heat = heatmap(teacher, cells, unit, title, params)
        rows += (
            [bar_chart(teacher, x, weighting).properties(width=width, height=64)] if bars else []
        )
        rows.append(with_weights(heat, weights, cells, width))
        data |= {"cells": cells, "bars": bars, "weights": weights}
        switches = parameters(cells, bars, edit or cells[0]["edit"], log, toggles)
        rows[0] = rows[0].add_params(*switches)
    if plan is not None:
        rows += plan_views(teacher, x, "glyph:N" if cells else "block:Q", width)
    about = {"map": bool(cells), "beside": beside(cells, weights, title) if cells else {}}
    chart = alt.vconcat(*rows, spacing=4, datasets=data, usermeta=about).resolve_scale(
        x="shared", color="independent"
    )
    return chart.configure_view(stroke=None)


def beside(cells: Rows, weights: Rows, title: list[str]) -> dict[str, int]:
    """Pixels of width that are no plot, for the app: with the legend at the right (wide) and below
    (narrow).
    """
    letter = 6.4
    left = 45 + letter * min(max(len(line) for line in line_order(cells)), 17)
    right = 62 if weights else 10
    return {
        "wide": round(left + right + max(letter * max(len(line) for line in title), 60) + 14),
        "narrow": round(left + right),
    }


def parameters(cells: Rows, bars: Rows, edit: str, log: bool, toggles: bool) -> list[alt.Parameter]:
    edits = list(dict.fromkeys(row["edit"] for row in cells))
    choose: dict[str, Any] = (
        {"bind": alt.binding_select(options=edits, name="edit shown ")} if toggles else {}
    )
    switch: dict[str, Any] = (
        {"bind": alt.binding_radio(options=["log", "linear"], name="colour ")} if toggles else {}
    )
    scales = scales_of(cells) | {"*": two_scales([row["score"] for row in cells])}
    return [
        alt.param(name="edit", value=edit, **choose),
        alt.param(name="colour", value="log" if log else "linear", **switch),
        alt.param(name="scales", value=scales),
        alt.param(name="barscales", value=bar_scales(bars)),
    ]


def with_weights(heat: alt.LayerChart, weights: Rows, cells: Rows, width: int) -> Any:
    order = line_order(cells)
    tall = height_of(len(order))
    heat = heat.properties(width=width, height=tall * len(order))
    return alt.hconcat(heat, weight_chart(order, tall), spacing=6) if weights else heat


def height_of(lines: int) -> int:
    """Pixels of one line of the map."""
    return max(5, min(26, 300 // lines))


def selections() -> tuple[alt.Parameter, alt.Parameter]:
    """`pick`: click, with shift or ctrl added to. `box`: drag along the block axis."""
    more = "event.shiftKey||event.ctrlKey||event.metaKey"
    # The clear expression makes a plain press forget the earlier picks, so that selection = pick +
    # box.
    pick = alt.selection_point(
        name="pick", fields=["at"], toggle=more, empty=False, clear=f"pointerdown[!({more})]"
    )
    return pick, alt.selection_interval(name="box", encodings=["x"], empty=False)


# A block is picked when the box touches it; nothing is dimmed while nothing is picked.
PICKED = (
    "(!isArray(box.at) && !isArray(pick.at)) || (isArray(box.at) && datum.end > box.at[0] "
    "&& datum.at < box.at[1])"
    " || (isArray(pick.at) && indexof(pick.at, datum.at) >= 0)"
)
ONE = "datum.edit == edit"
READING = "format(datum.score, '.3~g') + (isValid(datum.stderr) ? ' ± ' + format(datum.stderr, '.1~g') : '')"


def heatmap(
    teacher: Teacher, cells: Rows, unit: str, title: list[str], params: bool
) -> alt.LayerChart:
    """Cells of the edit shown; of every edit, where the edits are the lines."""
    together = any(row["line"] == row["edit"] for row in cells)
    scales = "scales['*']" if together else "scales[edit]"
    shape: Shape = "edits" if together else "spans" if spans(cells) else "timesteps"
    axis = alt.X(
        "at:Q", scale=block_scale(teacher), axis=block_axis(teacher, title=block_title(teacher))
    )
    line = alt.Y(
        "line:N",
        sort=line_order(cells),
        title=TITLES[shape],
        axis=alt.Axis(labelOverlap=True, labelLimit=110),
    )
    lines = len(line_order(cells))
    length = max(60, min(150, height_of(lines) * lines - 30))
    legend = alt.Legend(
        title=title, gradientLength=length, values=ticks(scales), labelExpr=label(scales)
    )
    base = (
        alt.Chart(alt.NamedData(name="cells"))
        if together
        else alt.Chart(alt.NamedData(name="cells")).transform_filter(ONE)
    )
    base = base.transform_calculate(
        end="datum.at + 1",
        block=block_expression(teacher, "datum.at"),
        stack=stack_expression(teacher, "datum.at"),
        shade=placed("datum.score", scales),
        reading=READING,
    )
    tips = [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("edit:N"),
        alt.Tooltip("line:N", title=TITLES[shape].split(" (")[0]),
        alt.Tooltip("reading:N", title=unit or "score"),
        *([alt.Tooltip("flag:N")] if flagged(cells) else []),
    ]
    chart = base.mark_rect().encode(
        axis,
        alt.X2("end:Q"),
        line,
        alt.Color("shade:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), legend=legend),
        tooltip=tips,
    )
    if params:
        chart = chart.encode(
            opacity=alt.when(PICKED).then(alt.value(1)).otherwise(alt.value(0.35))
        ).add_params(*selections())
    layers = [chart]
    if flagged(cells):
        layers.append(
            base.transform_filter("isValid(datum.flag)")
            .transform_calculate(middle="datum.at + 0.5")
            .mark_text(text="!", fontWeight="bold", color="white", stroke="black", strokeWidth=0.4)
            .encode(alt.X("middle:Q", scale=block_scale(teacher)), line, tooltip=tips)
        )
    out = layers[0]
    for layer in [*layers[1:], chosen(axis)]:
        out = out + layer
    return out


def flagged(cells: Rows) -> bool:
    return any(row.get("flag") for row in cells)


def spans(cells: Rows) -> bool:
    return any("last" in row for row in cells)


def bar_chart(teacher: Teacher, x: alt.X, weighting: str) -> alt.LayerChart:
    """Per block, over all timesteps, with error bars. On a log scale bars stand on a floor, the
    least score.
    """
    scales = "barscales[edit]"
    place = alt.Scale(domain=[-0.06, 1], nice=False)
    axis = alt.Axis(values=ticks(scales), labelExpr=label(scales), grid=False)
    zero = f"colour == 'log' ? -0.06 : (0 - {scales}.linear.low) / ({scales}.linear.high - {scales}.linear.low)"
    base = (
        alt.Chart(alt.NamedData(name="bars"))
        .transform_filter(ONE)
        .transform_calculate(
            end="datum.at + 1",
            middle="datum.at + 0.5",
            block=block_expression(teacher, "datum.at"),
            stack=stack_expression(teacher, "datum.at"),
            place=placed("datum.score", scales),
            base=zero,
            reading="format(datum.score, '.3~g') + (isValid(datum.high) ? ' ± ' + "
            "format(datum.high - "
            "datum.score, '.1~g') : '')",
        )
    )
    tips = ["stack:N", "block:Q", "edit:N", alt.Tooltip("reading:N", title=f"score, {weighting}")]
    bars = base.mark_rect(color=BAR, clip=True).encode(
        x,
        alt.X2("end:Q"),
        alt.Y("place:Q", title=["score", weighting], scale=place, axis=axis),
        alt.Y2("base:Q"),
        tooltip=tips,
    )
    errors = (
        base.transform_filter("isValid(datum.high)")
        .transform_calculate(bottom=placed("datum.low", scales), top=placed("datum.high", scales))
        .mark_rule(clip=True, color="#52606b")
        .encode(
            alt.X("middle:Q", scale=block_scale(teacher), axis=None),
            alt.Y("bottom:Q", scale=place),
            alt.Y2("top:Q"),
            tooltip=tips,
        )
    )
    return bars + errors


def weight_chart(order: list[str], tall: int) -> alt.Chart:
    """How much each timestep counts in the bars."""
    hidden = alt.Axis(labels=False, ticks=False, grid=False)
    return (
        alt.Chart(alt.NamedData(name="weights"), width=44, height=tall * len(order))
        .transform_filter(ONE)
        .mark_bar(color=BAR)
        .encode(
            alt.Y("line:N", sort=order, axis=None),
            alt.X("weight:Q", title="weight", scale=alt.Scale(domain=[0, 1]), axis=hidden),
            tooltip=[
                alt.Tooltip("line:N", title="timestep"),
                alt.Tooltip("weight:Q", format=".2f", title="share of the largest"),
            ],
        )
    )
