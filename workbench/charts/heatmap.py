"""The chart of a sensitivity map: bars per block, block x timestep cells of every edit (one shown
at a time), and the plan beneath.

Maps of all shapes (shapes.shape_of) are drawn by the same chart, by what a row's `line` is.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, cast

import altair as alt

from ..records import Teacher
from .axis import (
    BAR,
    INK,
    WIDTH,
    Rows,
    block_expression,
    block_scale,
    block_x,
    first_values,
    label,
    offsets,
    placed,
    stack_expression,
    stack_titles,
    ticks,
)
from .map_rows import (
    ALL_EDITS,
    bar_scales,
    cell_scales,
    edits_are_lines,
    flagged,
    line_order,
    shape_of_cells,
)
from .plan import chosen, plan_views
from .shapes import TITLES

LETTER = 6.4  # pixels of a letter, on average
LOG_BASE = -0.06  # where bars stand on the log scale: a little below the least score

# Vega expressions. A block is picked when the box touches it; nothing is dimmed while nothing is
# picked.
NOTHING_PICKED = "(!isArray(box.at) && !isArray(pick.at))"
IN_BOX = "(isArray(box.at) && datum.end > box.at[0] && datum.at < box.at[1])"
CLICKED = "(isArray(pick.at) && indexof(pick.at, datum.at) >= 0)"
PICKED = f"{NOTHING_PICKED} || {IN_BOX} || {CLICKED}"
SHOWN_EDIT = "datum.edit == edit"
READING = (
    "format(datum.score, '.3~g') + "
    "(isValid(datum.stderr) ? ' ± ' + format(datum.stderr, '.1~g') : '')"
)
BAR_READING = (
    "format(datum.score, '.3~g') + "
    "(isValid(datum.high) ? ' ± ' + format(datum.high - datum.score, '.1~g') : '')"
)


@dataclass(frozen=True)
class Labels:
    """What the map's legends and tooltips say."""

    metric: str = "sensitivity"
    unit: str = ""
    direction: str = "higher = keep"
    weighting: str = "weighted"

    @property
    def legend(self) -> list[str]:
        return [self.metric, *textwrap.wrap(self.direction, 18)]


def sensitivity_chart(
    teacher: Teacher,
    cells: Rows,
    bars: Rows,
    weights: Rows,
    plan: dict[str, Rows] | None,
    *,
    edit: str = "",
    log: bool = True,
    labels: Labels | None = None,
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
    labels = labels or Labels()
    views: list[Any] = list(stack_titles(teacher, width))
    data: dict[str, Any] = {"marks": []} if plan is None else dict(plan)
    beside_map: dict[str, int] = {}
    if cells:
        if bars:
            views.append(bar_chart(teacher, labels.weighting).properties(width=width, height=64))
        heat = heatmap(teacher, cells, labels, params)
        views.append(with_weights(heat, weights, cells, width))
        data |= {"cells": cells, "bars": bars, "weights": weights}
        shown = edit or cells[0]["edit"]
        views[0] = views[0].add_params(*parameters(cells, bars, shown, log, toggles))
        beside_map = beside(cells, weights, labels.legend)
    if plan is not None:
        views += plan_views(teacher, "glyph:N" if cells else "block:Q", width)
    about = {"map": bool(cells), "beside": beside_map}
    chart = alt.vconcat(*views, spacing=4, datasets=data, usermeta=about)
    return chart.resolve_scale(x="shared", color="independent").configure_view(stroke=None)


def beside(cells: Rows, weights: Rows, legend: list[str]) -> dict[str, int]:
    """Pixels of width that are no plot, for the app: with the legend at the right (wide) and below
    (narrow).
    """
    longest_line = max(len(line) for line in line_order(cells))
    longest_title = max(len(line) for line in legend)
    left = 45 + LETTER * min(longest_line, 17)
    right = 62 if weights else 10
    legend_width = max(LETTER * longest_title, 60) + 14
    return {"wide": round(left + right + legend_width), "narrow": round(left + right)}


def parameters(cells: Rows, bars: Rows, edit: str, log: bool, toggles: bool) -> list[alt.Parameter]:
    """`edit`, `colour` (log or linear) and the scales that both choose from."""
    choose: dict[str, Any] = {}
    switch: dict[str, Any] = {}
    if toggles:
        edits = first_values(cells, "edit")
        choose["bind"] = alt.binding_select(options=edits, name="edit shown ")
        switch["bind"] = alt.binding_radio(options=["log", "linear"], name="colour ")
    return [
        alt.param(name="edit", value=edit, **choose),
        alt.param(name="colour", value="log" if log else "linear", **switch),
        alt.param(name="scales", value=cell_scales(cells)),
        alt.param(name="barscales", value=bar_scales(bars)),
    ]


def with_weights(heat: alt.LayerChart, weights: Rows, cells: Rows, width: int) -> Any:
    """The map, with the weights of its timesteps at its right."""
    order = line_order(cells)
    tall = line_height(len(order))
    heat = heat.properties(width=width, height=tall * len(order))
    if not weights:
        return heat
    return alt.hconcat(heat, weight_chart(order, tall), spacing=6)


def line_height(lines: int) -> int:
    """Pixels of one line of the map."""
    return max(5, min(26, 300 // lines))


# --- the cells ------------------------------------------------------------------------------------


def heatmap(teacher: Teacher, cells: Rows, labels: Labels, params: bool) -> alt.LayerChart:
    """Cells of the edit shown; of every edit, where the edits are the lines."""
    base = cell_base(teacher, cells)
    line = line_axis(cells)
    tips = cell_tips(cells, labels)
    chart = base.mark_rect().encode(
        block_x(teacher), alt.X2("end:Q"), line, cell_colour(cells, labels), tooltip=tips
    )
    if params:
        opacity = alt.when(PICKED).then(alt.value(1)).otherwise(alt.value(0.35))
        chart = chart.encode(opacity=opacity).add_params(*selections())
    selected = chosen(block_x(teacher))
    if flagged(cells):
        return chart + flags(teacher, base, line, tips) + selected
    return chart + selected


def cell_base(teacher: Teacher, cells: Rows) -> alt.Chart:
    base = alt.Chart(alt.NamedData(name="cells"))
    if not edits_are_lines(cells):
        base = base.transform_filter(SHOWN_EDIT)
    return base.transform_calculate(
        end="datum.at + 1",
        block=block_expression(offsets(teacher).values(), "datum.at"),
        stack=stack_expression(teacher, "datum.at"),
        shade=placed("datum.score", scales_of(cells)),
        reading=READING,
    )


def scales_of(cells: Rows) -> str:
    """Vega: the scales of the cells shown."""
    return f"scales['{ALL_EDITS}']" if edits_are_lines(cells) else "scales[edit]"


def line_axis(cells: Rows) -> alt.Y:
    return alt.Y(
        "line:N",
        sort=line_order(cells),
        title=TITLES[shape_of_cells(cells)],
        axis=alt.Axis(labelOverlap=True, labelLimit=110),
    )


def cell_colour(cells: Rows, labels: Labels) -> alt.Color:
    lines = len(line_order(cells))
    scales = scales_of(cells)
    legend = alt.Legend(
        title=labels.legend,
        gradientLength=max(60, min(150, line_height(lines) * lines - 30)),
        values=ticks(scales),
        labelExpr=label(scales),
    )
    return alt.Color("shade:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1]), legend=legend)


def cell_tips(cells: Rows, labels: Labels) -> list[alt.Tooltip]:
    line_title = TITLES[shape_of_cells(cells)].split(" (")[0]
    tips = [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("edit:N"),
        alt.Tooltip("line:N", title=line_title),
        alt.Tooltip("reading:N", title=labels.unit or "score"),
    ]
    if flagged(cells):
        tips.append(alt.Tooltip("flag:N"))
    return tips


def flags(teacher: Teacher, base: alt.Chart, line: alt.Y, tips: list[alt.Tooltip]) -> alt.Chart:
    """An exclamation mark on cells whose score needs a remark."""
    return (
        base.transform_filter("isValid(datum.flag)")
        .transform_calculate(middle="datum.at + 0.5")
        .mark_text(text="!", fontWeight="bold", color="white", stroke="black", strokeWidth=0.4)
        .encode(alt.X("middle:Q", scale=block_scale(teacher)), line, tooltip=tips)
    )


def selections() -> tuple[alt.Parameter, alt.Parameter]:
    """`pick`: click, with shift or ctrl added to. `box`: drag along the block axis."""
    more = "event.shiftKey||event.ctrlKey||event.metaKey"
    # The clear expression makes a plain press forget the earlier picks, so that selection = pick +
    # box.
    pick = alt.selection_point(
        name="pick", fields=["at"], toggle=more, empty=False, clear=f"pointerdown[!({more})]"
    )
    return pick, alt.selection_interval(name="box", encodings=["x"], empty=False)


# --- bars and weights -----------------------------------------------------------------------------


def bar_chart(teacher: Teacher, weighting: str) -> alt.LayerChart:
    """Per block, over all timesteps, with error bars. On a log scale bars stand on a floor, the
    least score.
    """
    scales = "barscales[edit]"
    linear = f"{scales}.linear"
    zero = f"(0 - {linear}.low) / ({linear}.high - {linear}.low)"
    base = (
        alt.Chart(alt.NamedData(name="bars"))
        .transform_filter(SHOWN_EDIT)
        .transform_calculate(
            end="datum.at + 1",
            middle="datum.at + 0.5",
            block=block_expression(offsets(teacher).values(), "datum.at"),
            stack=stack_expression(teacher, "datum.at"),
            place=placed("datum.score", scales),
            base=f"colour == 'log' ? {LOG_BASE} : {zero}",
            reading=BAR_READING,
        )
    )
    bars = score_bars(teacher, base, scales, weighting)
    errors = error_bars(teacher, base, scales, weighting)
    return cast(alt.LayerChart, bars + errors)


def score_bars(teacher: Teacher, base: alt.Chart, scales: str, weighting: str) -> alt.Chart:
    axis = alt.Axis(values=ticks(scales), labelExpr=label(scales), grid=False)
    return base.mark_rect(color=BAR, clip=True).encode(
        alt.X("at:Q", scale=block_scale(teacher), title=None, axis=None),
        alt.X2("end:Q"),
        alt.Y("place:Q", title=["score", weighting], scale=share_scale(), axis=axis),
        alt.Y2("base:Q"),
        tooltip=bar_tips(weighting),
    )


def error_bars(teacher: Teacher, base: alt.Chart, scales: str, weighting: str) -> alt.Chart:
    return (
        base.transform_filter("isValid(datum.high)")
        .transform_calculate(bottom=placed("datum.low", scales), top=placed("datum.high", scales))
        .mark_rule(clip=True, color=INK)
        .encode(
            alt.X("middle:Q", scale=block_scale(teacher), axis=None),
            alt.Y("bottom:Q", scale=share_scale()),
            alt.Y2("top:Q"),
            tooltip=bar_tips(weighting),
        )
    )


def share_scale() -> alt.Scale:
    """Shares of the axis, with room for the foot of the bars on the log scale."""
    return alt.Scale(domain=[LOG_BASE, 1], nice=False)


def bar_tips(weighting: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("edit:N"),
        alt.Tooltip("reading:N", title=f"score, {weighting}"),
    ]


def weight_chart(order: list[str], tall: int) -> alt.Chart:
    """How much each timestep counts in the bars."""
    hidden = alt.Axis(labels=False, ticks=False, grid=False)
    return (
        alt.Chart(alt.NamedData(name="weights"), width=44, height=tall * len(order))
        .transform_filter(SHOWN_EDIT)
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
