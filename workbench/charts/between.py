"""Two maps against each other: where they differ, and how far they put the blocks in the same
order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt

from ..records import BadInput, SensitivityMap, Teacher
from .axis import BESIDE, WIDTH, Rows, block_axis, block_scale, block_title, offsets, stack_titles
from .maps import line_order, over_timesteps, time_label

Order = Mapping[tuple[str, int], float]  # (stack, block) -> score
Cells = dict[tuple[str, int, str], float]


def difference_rows(
    one: SensitivityMap,
    two: SensitivityMap,
    teacher: Teacher,
    edits: tuple[str, str],
    orders: tuple[Order, Order],
) -> Rows:
    """Where `one` under its edit scores higher than `two` under its own.

    `kind` "ratio": the same metric; log2 of the scores' ratio, per timestep where both have it,
    else of the aggregated `orders`. `kind` "rank": metrics of different units; difference of the
    blocks' ranks, as a share of the number of blocks. Raises BadInput where no block is in both.
    """
    if one.metric != two.metric or one.unit != two.unit:
        return ranked(teacher, orders)
    start = offsets(teacher)
    left, right = (cells_of(m, edit) for m, edit in zip((one, two), edits, strict=True))
    if not left.keys() & right.keys():
        left, right = (whole(order) for order in orders)
    shared = [key for key in left if key in right and key[0] in start]
    if not shared:
        raise BadInput(
            f"{edits[0]} and {edits[1]} have no block in common",
            "maps that share blocks",
            "choose others",
        )
    return [
        row_of(start, stack, block, line, a, b, math.log2(a / b), "ratio")
        for stack, block, line in shared
        if (a := left[(stack, block, line)]) > 0 and (b := right[(stack, block, line)]) > 0
    ]


def cells_of(measured: SensitivityMap, edit: str) -> Cells:
    """(stack, block, line) -> score; the line is a timestep, a span's last block, or `all`."""
    return {
        (
            row.stack,
            row.block,
            time_label(row.timestep) if row.last is None else str(row.last),
        ): row.score
        for row in over_timesteps(measured)
        if row.edit == edit
    }


def whole(order: Order) -> Cells:
    return {(stack, block, "all"): score for (stack, block), score in order.items()}


def ranked(teacher: Teacher, orders: tuple[Order, Order]) -> Rows:
    start = offsets(teacher)
    keys = [key for key in orders[0] if key in orders[1] and key[0] in start]
    if len(keys) < 2:
        raise BadInput(
            "the maps share fewer than two blocks", "maps of the same blocks", "choose others"
        )
    places = [ranks([order[key] for key in keys]) for order in orders]
    return [
        row_of(
            start,
            stack,
            block,
            "all",
            orders[0][(stack, block)],
            orders[1][(stack, block)],
            (a - b) / len(keys),
            "rank",
        )
        for (stack, block), a, b in zip(keys, *places, strict=True)
    ]


def row_of(
    start: Mapping[str, int],
    stack: str,
    block: int,
    line: str,
    one: float,
    two: float,
    difference: float,
    kind: str,
) -> dict[str, Any]:
    at = start[stack] + block
    return {
        "at": at,
        "end": at + 1,
        "stack": stack,
        "block": block,
        "edit": "",
        "line": line,
        "one": one,
        "two": two,
        "difference": difference,
        "kind": kind,
    }


def difference_chart(
    teacher: Teacher,
    rows: Rows,
    names: tuple[str, str] = ("first", "second"),
    *,
    width: int = WIDTH,
) -> alt.VConcatChart:
    """Red where the first scores higher, blue where the second does, white where they agree."""
    ratio = rows[0]["kind"] == "ratio" if rows else True
    top = max((abs(row["difference"]) for row in rows), default=1.0) or 1.0
    label = (
        "format(pow(2, abs(datum.value)), '.2~g') + '×'"
        if ratio
        else "format(abs(datum.value), '.0%')"
    )
    title = ["score" if ratio else "rank", "red: first higher", "blue: second higher"]
    order = line_order(rows)
    x = alt.X(
        "at:Q", scale=block_scale(teacher), axis=block_axis(teacher, title=block_title(teacher))
    )
    tall = max(10, min(26, 300 // max(len(order), 1))) * max(len(order), 2)
    tips = [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("line:N", title="timestep"),
        alt.Tooltip("one:Q", format=".3g", title=f"first: {names[0]}"),
        alt.Tooltip("two:Q", format=".3g", title=f"second: {names[1]}"),
    ]
    chart = (
        alt.Chart(alt.Data(values=rows), width=width, height=tall)
        .mark_rect()
        .encode(
            x,
            alt.X2("end:Q"),
            alt.Y(
                "line:N",
                sort=order,
                title="timestep" if len(order) > 1 else None,
                axis=alt.Axis(labelOverlap=True),
            ),
            alt.Color(
                "difference:Q",
                scale=alt.Scale(scheme="redblue", reverse=True, domain=[-top, top]),
                legend=alt.Legend(title=title, gradientLength=110, labelExpr=label, tickCount=5),
            ),
            tooltip=tips,
        )
    )
    axis = alt.X("at:Q", scale=block_scale(teacher), axis=None)
    above = [stack_titles(teacher, axis, width)] if len(teacher.stacks) > 1 else []
    return (
        alt.vconcat(*above, chart, spacing=2, usermeta=BESIDE)
        .resolve_scale(x="shared")
        .configure_view(stroke=None)
    )


# --- orders of blocks -----------------------------------------------------------------------------


def ranks(values: list[float]) -> list[float]:
    """Rank of each value, the least 0; ties share their mean rank."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    out, at = [0.0] * len(values), 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for place in order[at : end + 1]:
            out[place] = (at + end) / 2
        at = end + 1
    return out


def spearman(one: Order, two: Order) -> float | None:
    """Rank correlation over the blocks both have; None for fewer than three, or where one does not
    tell blocks apart.
    """
    keys = [key for key in one if key in two]
    if len(keys) < 3:
        return None
    a, b = (ranks([order[key] for key in keys]) for order in (one, two))
    mean = (len(keys) - 1) / 2
    spread = math.sqrt(sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b))
    return (
        sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / spread if spread else None
    )


def correlation_rows(orders: Mapping[str, Order]) -> Rows:
    """Every pair of named orders, both ways round."""
    return [
        {
            "one": one,
            "two": two,
            "correlation": value,
            "blocks": len(orders[one].keys() & orders[two].keys()),
        }
        for one in orders
        for two in orders
        if (value := spearman(orders[one], orders[two])) is not None
    ]


def correlation_chart(rows: Rows, *, width: int = 360) -> alt.LayerChart:
    """Spearman's rank correlation of block orders: 1 the same order, 0 unrelated, -1 reversed."""
    names = list(dict.fromkeys(row["one"] for row in rows))
    side = max(26, min(44, width // max(len(names), 1)))
    base = alt.Chart(alt.Data(values=rows), width=alt.Step(side), height=alt.Step(side)).encode(
        alt.X("one:N", sort=names, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=170)),
        alt.Y("two:N", sort=names, title=None, axis=alt.Axis(labelLimit=170)),
        tooltip=["one:N", "two:N", alt.Tooltip("correlation:Q", format=".3f"), "blocks:Q"],
    )
    cells = base.mark_rect().encode(
        alt.Color(
            "correlation:Q",
            scale=alt.Scale(scheme="redblue", domain=[-1, 1]),
            legend=alt.Legend(title=["rank correlation", "1 = same order"], gradientLength=100),
        )
    )
    text = base.mark_text(fontSize=10).encode(
        alt.Text("correlation:Q", format=".2f"),
        color=alt.condition(
            "abs(datum.correlation) > 0.6", alt.value("white"), alt.value("#27272a")
        ),
    )
    return (cells + text).properties(usermeta=BESIDE)
