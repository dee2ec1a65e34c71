"""Two maps against each other: where they differ, and how far they put the blocks in the same
order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import altair as alt
import scipy  # its parts load when they are first used: scipy.stats takes seconds

from ..records import BadInput, SensitivityMap, Teacher
from .axis import BESIDE, WIDTH, Rows, block_x, either_colour, first_values, offsets, stack_titles
from .map_rows import line_order, shape_of_cells
from .shapes import TITLES, over_timesteps, shape_of, time_label

Order = Mapping[tuple[str, int], float]  # (stack, block) -> score
Cells = dict[tuple[str, int, str], float]  # (stack, block, line) -> score
FEWEST = 3  # blocks that make an order


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
        return rank_differences(teacher, orders)
    left = cells_of(one, edits[0])
    right = cells_of(two, edits[1])
    if not left.keys() & right.keys():
        left = whole(orders[0])
        right = whole(orders[1])
    starts = offsets(teacher)
    shared = [key for key in left if key in right and key[0] in starts]
    if not shared:
        raise BadInput(
            f"{edits[0]} and {edits[1]} have no block in common",
            "maps that share blocks",
            "choose others",
        )
    spans = shape_of(one) == "spans"
    rows = []
    for key in shared:
        if left[key] > 0 and right[key] > 0:
            ratio = math.log2(left[key] / right[key])
            row = difference_row(starts, key, (left[key], right[key]), ratio, "ratio")
            if spans and key[2] != "all":
                row["last"] = int(key[2])
            rows.append(row)
    return rows


def cells_of(measured: SensitivityMap, edit: str) -> Cells:
    """(stack, block, line) -> score; the line is a timestep, a span's last block, or `all`."""
    cells: Cells = {}
    for row in over_timesteps(measured):
        if row.edit == edit:
            line = time_label(row.timestep) if row.last is None else str(row.last)
            cells[row.stack, row.block, line] = row.score
    return cells


def whole(order: Order) -> Cells:
    return {(stack, block, "all"): score for (stack, block), score in order.items()}


def rank_differences(teacher: Teacher, orders: tuple[Order, Order]) -> Rows:
    """Differences of the blocks' ranks. Raises BadInput for fewer than two shared blocks."""
    starts = offsets(teacher)
    keys = [key for key in orders[0] if key in orders[1] and key[0] in starts]
    if len(keys) < 2:
        raise BadInput(
            "the maps share fewer than two blocks", "maps of the same blocks", "choose others"
        )
    first = scipy.stats.rankdata([orders[0][key] for key in keys])
    second = scipy.stats.rankdata([orders[1][key] for key in keys])
    rows = []
    for (stack, block), a, b in zip(keys, first, second, strict=True):
        scores = (orders[0][stack, block], orders[1][stack, block])
        share = float(a - b) / len(keys)
        rows.append(difference_row(starts, (stack, block, "all"), scores, share, "rank"))
    return rows


def difference_row(
    starts: Mapping[str, int],
    key: tuple[str, int, str],
    scores: tuple[float, float],
    difference: float,
    kind: str,
) -> dict[str, Any]:
    stack, block, line = key
    at = starts[stack] + block
    return {
        "at": at,
        "end": at + 1,
        "stack": stack,
        "block": block,
        "edit": "",
        "line": line,
        "one": scores[0],
        "two": scores[1],
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
    order = line_order(rows)
    line_title = TITLES[shape_of_cells(rows)]
    height = max(10, min(26, 300 // max(len(order), 1))) * max(len(order), 2)
    tips = [
        alt.Tooltip("stack:N"),
        alt.Tooltip("block:Q"),
        alt.Tooltip("line:N", title=line_title),
        alt.Tooltip("one:Q", format=".3g", title=f"first: {names[0]}"),
        alt.Tooltip("two:Q", format=".3g", title=f"second: {names[1]}"),
    ]
    line = alt.Y(
        "line:N",
        sort=order,
        title=line_title if len(order) > 1 else None,
        axis=alt.Axis(labelOverlap=True),
    )
    chart = (
        alt.Chart(alt.Data(values=rows), width=width, height=height)
        .mark_rect()
        .encode(block_x(teacher), alt.X2("end:Q"), line, difference_colour(rows), tooltip=tips)
    )
    return (
        alt.vconcat(*stack_titles(teacher, width), chart, spacing=2, usermeta=BESIDE)
        .resolve_scale(x="shared")
        .configure_view(stroke=None)
    )


def difference_colour(rows: Rows) -> alt.Color:
    largest = max((abs(row["difference"]) for row in rows), default=1.0) or 1.0
    if not rows or rows[0]["kind"] == "ratio":
        title = "score"
        label = "format(pow(2, abs(datum.value)), '.2~g') + '×'"
    else:
        title = "rank"
        label = "format(abs(datum.value), '.0%')"
    legend = alt.Legend(
        title=[title, "red: first higher", "blue: second higher"],
        gradientLength=110,
        labelExpr=label,
        tickCount=5,
    )
    scale = alt.Scale(scheme="redblue", reverse=True, domain=[-largest, largest])
    return alt.Color("difference:Q", scale=scale, legend=legend)


# --- orders of blocks -----------------------------------------------------------------------------


def spearman(one: Order, two: Order) -> float | None:
    """Rank correlation over the blocks both have; None for fewer than three, or where one gives all
    blocks the same score.
    """
    keys = [key for key in one if key in two]
    if len(keys) < FEWEST:
        return None
    first = scipy.stats.rankdata([one[key] for key in keys])
    second = scipy.stats.rankdata([two[key] for key in keys])
    first -= first.mean()
    second -= second.mean()
    spread = math.sqrt((first**2).sum() * (second**2).sum())
    return float((first * second).sum() / spread) if spread else None


def correlation_rows(orders: Mapping[str, Order]) -> Rows:
    """Every pair of named orders, both ways round; without pairs that have no correlation."""
    rows = []
    for one, two in product(orders, orders):
        value = spearman(orders[one], orders[two])
        if value is not None:
            blocks = len(orders[one].keys() & orders[two].keys())
            rows.append({"one": one, "two": two, "correlation": value, "blocks": blocks})
    return rows


def correlation_chart(rows: Rows, *, width: int = 360) -> alt.LayerChart:
    """Spearman's rank correlation of block orders: 1 the same order, 0 unrelated, -1 reversed."""
    names = first_values(rows, "one")
    side = max(26, min(44, width // max(len(names), 1)))
    base = alt.Chart(alt.Data(values=rows), width=alt.Step(side), height=alt.Step(side)).encode(
        alt.X("one:N", sort=names, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=170)),
        alt.Y("two:N", sort=names, title=None, axis=alt.Axis(labelLimit=170)),
        tooltip=[
            alt.Tooltip("one:N"),
            alt.Tooltip("two:N"),
            alt.Tooltip("correlation:Q", format=".3f"),
            alt.Tooltip("blocks:Q"),
        ],
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
        either_colour("abs(datum.correlation) > 0.6", "white", "#27272a"),
    )
    return (cells + text).properties(usermeta=BESIDE)
