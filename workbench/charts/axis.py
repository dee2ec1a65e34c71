"""What all charts share: the block axis, colours, and scales that switch between log and linear
without a new drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import altair as alt

from ..records import Teacher

Rows = list[dict[str, Any]]
COLOURS = {"keep": "#3a7ca5", "drop": "#d1495b", "merge": "#e9a03b", "single": "#7a5195"}
BAR = "#8aa6b8"
GAP = 0.05  # between neighbours in the strips, in blocks
# for the app: how much of the width is no plot, and where the legend stands
BESIDE = {"room": 235, "legend": "right"}
WIDTH = 860  # the app replaces it by the room there is

alt.data_transformers.disable_max_rows()


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def offsets(teacher: Teacher) -> dict[str, int]:
    """Stack path -> place of its block 0 on the block axis."""
    out, at = {}, 0
    for stack in teacher.stacks:
        out[stack.path] = at
        at += stack.depth
    return out


def depth(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def block_scale(teacher: Teacher) -> alt.Scale:
    return alt.Scale(domain=[0, depth(teacher)], nice=False)


def block_expression(teacher: Teacher, at: str) -> str:
    """Vega: a place on the axis as the block's number in its stack."""
    out = at
    for begin in list(offsets(teacher).values())[1:]:
        out = f"({at} >= {begin} ? {at} - {begin} : {out})"
    return out


def stack_expression(teacher: Teacher, at: str) -> str:
    """Vega: a place on the axis as its stack's path."""
    out = f"'{teacher.stacks[0].path}'"
    for path, begin in list(offsets(teacher).items())[1:]:
        out = f"({at} >= {begin} ? '{path}' : {out})"
    return out


def block_axis(teacher: Teacher, **more: Any) -> alt.Axis:
    """Block numbers under the middle of each column, starting at 0 in every stack."""
    return alt.Axis(
        values=[b + 0.5 for b in range(depth(teacher))],
        labelExpr=block_expression(teacher, "floor(datum.value)"),
        labelOverlap=True,
        labelAngle=0,
        ticks=False,
        grid=False,
        domain=False,
        **more,
    )


def block_title(teacher: Teacher) -> str:
    return (
        f"block of {teacher.stacks[0].path}"
        if len(teacher.stacks) == 1
        else "block, counted in each stack"
    )


def stack_titles(teacher: Teacher, x: alt.X, width: int) -> alt.LayerChart:
    start = offsets(teacher)
    return titles(
        [(start[s.path], s.depth, f"{s.path} ({s.kind}, {s.depth})") for s in teacher.stacks],
        x,
        width,
    )


def titles(stacks: list[tuple[int, int, str]], x: alt.X, width: int) -> alt.LayerChart:
    """A name over the first block of each stack, cut where the next begins: (place, depth, name)."""
    total = sum(blocks for _, blocks, _ in stacks)
    return alt.layer(
        *(  # type: ignore[return-value]
            alt.Chart(alt.Data(values=[{"at": at, "name": name}]))
            .mark_text(
                align="left", fontWeight="bold", limit=max(30, round(width * blocks / total) - 8)
            )
            .encode(x, y=alt.value(8), text="name:N", tooltip=["name:N"])
            for at, blocks, name in stacks
        )
    ).properties(width=width, height=16)


# --- scales ---------------------------------------------------------------------------------------
# A Vega-Lite scale's type cannot follow a parameter. So charts place values on [0, 1] themselves,
# by these figures, and write the labels backwards: one chart toggles edits and log or linear in the
# browser.


def two_scales(values: Iterable[float], errors: Iterable[float] = ()) -> dict[str, Any]:
    """How values lie on [0, 1]: for `log` and `linear` the ends and ticks.

    On the log scale all below its floor share it: what is not positive, and what is a millionth of
    the largest.
    """
    found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    reach = [*found, *(e for e in errors if math.isfinite(e))]
    positive = [v for v in found if v > 0] or [1e-6, 1.0]
    floor = max(min(positive), max(positive) * 1e-6)
    top = max(max(v for v in reach if v > 0) if max(reach) > 0 else 1.0, floor * 1.001)
    low, high = min(0.0, *reach), max(0.0, *reach)
    high = high if high > low else low + 1.0
    return {
        "floor": floor,
        "log": {"low": math.log10(floor), "high": math.log10(top), "ticks": log_ticks(floor, top)},
        "linear": {
            "low": low,
            "high": high,
            "ticks": [(v - low) / (high - low) for v in linear_ticks(low, high)],
        },
    }


def log_ticks(floor: float, top: float) -> list[float]:
    """Powers of ten between the ends, or 1-2-5 steps where there are fewer than two; as shares of
    the scale.
    """
    low, high = math.log10(floor), math.log10(top)
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
        found = [s * 10.0**p for p in range(math.floor(low), math.ceil(high) + 1) for s in steps]
        found = [v for v in found if floor * 0.999 <= v <= top * 1.001]
        if len(found) >= 2:
            break
    found = (found if len(found) >= 2 else [floor, top])[:: max(1, len(found) // 5)]
    return [(math.log10(v) - low) / (high - low) for v in found]


def linear_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    raw = (high - low) / wanted
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(s * base for s in (1, 2, 5, 10) if s * base >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def placed(field: str, scales: str) -> str:
    """Vega: a field's place on [0, 1] of `scales` (an expression that gives `two_scales`), under
    the parameter `colour`.
    """
    return (
        f"((colour == 'log' ? log(max({field}, {scales}.floor)) / LN10 : {field}) - "
        f"{scales}[colour].low)"
        f" / ({scales}[colour].high - {scales}[colour].low)"
    )


def label(scales: str) -> str:
    """Vega: the value that lies at datum.value of [0, 1]."""
    value = f"({scales}[colour].low + datum.value * ({scales}[colour].high - {scales}[colour].low))"
    return f"format(colour == 'log' ? pow(10, {value}) : round({value} * 1e9) / 1e9, '.3~g')"


def ticks(scales: str) -> alt.ExprRef:
    return alt.ExprRef(f"{scales}[colour].ticks")
