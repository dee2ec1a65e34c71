"""What all charts share: the block axis, colours, and scales that switch between log and linear
without a new drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import altair as alt

from ..records import Teacher

Rows = list[dict[str, Any]]
COLOURS = {"keep": "#3a7ca5", "drop": "#d1495b", "merge": "#e9a03b", "single": "#7a5195"}
BAR = "#8aa6b8"
INK = "#52606b"
GAP = 0.05  # between neighbours in the strips, in blocks
# for the app: how much of the width is beside the plot, and where the legend stands
BESIDE = {"room": 235, "legend": "right"}
WIDTH = 860  # the app replaces it by the room there is

alt.data_transformers.disable_max_rows()


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def offsets(teacher: Teacher) -> dict[str, int]:
    """Stack path -> place of its block 0 on the block axis."""
    starts: dict[str, int] = {}
    at = 0
    for stack in teacher.stacks:
        starts[stack.path] = at
        at += stack.depth
    return starts


def depth(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def block_scale(teacher: Teacher) -> alt.Scale:
    return alt.Scale(domain=[0, depth(teacher)], nice=False)


def block_expression(starts: Iterable[int], at: str) -> str:
    """Vega: a place on the axis as the block's number in its stack; `starts` of the stacks."""
    expression = at
    for start in list(starts)[1:]:
        expression = f"({at} >= {start} ? {at} - {start} : {expression})"
    return expression


def stack_expression(teacher: Teacher, at: str) -> str:
    """Vega: a place on the axis as its stack's path."""
    expression = f"'{teacher.stacks[0].path}'"
    for path, start in list(offsets(teacher).items())[1:]:
        expression = f"({at} >= {start} ? '{path}' : {expression})"
    return expression


def block_axis(teacher: Teacher, title: Any = None) -> alt.Axis:
    """Block numbers under the middle of each column, starting at 0 in every stack."""
    return numbered_axis(list(offsets(teacher).values()), depth(teacher), title)


def numbered_axis(starts: Sequence[int], blocks: int, title: Any) -> alt.Axis:
    """The block axis of stacks that start at these places, `blocks` in all."""
    return alt.Axis(
        values=[block + 0.5 for block in range(blocks)],
        labelExpr=block_expression(starts, "floor(datum.value)"),
        labelOverlap=True,
        labelAngle=0,
        ticks=False,
        grid=False,
        domain=False,
        title=title,
    )


def block_title(paths: Sequence[str]) -> str:
    if len(paths) == 1:
        return f"block of {paths[0]}"
    return "block, counted in each stack"


def block_x(teacher: Teacher) -> alt.X:
    """The numbered and titled block axis of a chart whose rows have a place `at`."""
    title = block_title([stack.path for stack in teacher.stacks])
    return alt.X("at:Q", scale=block_scale(teacher), axis=block_axis(teacher, title))


def stack_titles(teacher: Teacher, width: int) -> list[alt.LayerChart]:
    """A line of stack names above a chart; none for one stack."""
    if len(teacher.stacks) == 1:
        return []
    starts = offsets(teacher)
    names = [
        (starts[stack.path], stack.depth, f"{stack.path} ({stack.kind}, {stack.depth})")
        for stack in teacher.stacks
    ]
    x = alt.X("at:Q", scale=block_scale(teacher), title=None, axis=None)
    return [titles(names, x, width)]


def titles(stacks: list[tuple[int, int, str]], x: alt.X, width: int) -> alt.LayerChart:
    """Names over the first block of each stack, cut where the next begins.

    stacks: (place, depth, name) of each.
    """
    total = sum(blocks for _, blocks, _ in stacks)
    names = []
    for at, blocks, name in stacks:
        room = max(30, round(width * blocks / total) - 8)
        names.append(
            alt.Chart(alt.Data(values=[{"at": at, "name": name}]))
            .mark_text(align="left", fontWeight="bold", limit=room)
            .encode(x, alt.YValue(8), alt.Text("name:N"), tooltip=[alt.Tooltip("name:N")])
        )
    return cast(alt.LayerChart, alt.layer(*names)).properties(width=width, height=16)


def either_colour(test: str, yes: str, no: str) -> alt.ColorValue:
    """One colour where a Vega expression holds, another where it does not."""
    return alt.ColorValue(no, condition={"test": test, "value": yes})


# --- scales that switch ---------------------------------------------------------------------------
#
# A Vega-Lite scale is log or linear when the chart is compiled; a parameter cannot switch it. To
# switch in the browser without a new drawing, every value is drawn at its share of the axis, 0 to
# 1, on a plain linear scale. `two_scales` computes in Python how values lie on either scale. In the
# browser, `placed` turns a value into its share and `label` turns a tick's share back into the
# value. Both are Vega expressions; the parameter `colour` is 'log' or 'linear'. With s for
# scales[colour]:
#
#     share = (v - s.low) / (s.high - s.low)        v: the value, or its log10 (at least the floor)
#     value = s.low + share * (s.high - s.low)      or 10 to the power of that

LOG_RANGE = 1e-6  # values below this share of the largest share the log scale's floor
LOG_STEPS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
ROUNDING = 1.001


def two_scales(values: Iterable[float], errors: Iterable[float] = ()) -> dict[str, Any]:
    """How values lie on [0, 1]: for `log` and `linear` the ends and ticks.

    errors: ends of error bars, which widen the linear scale and the top of the log scale. On the
    log scale all below its floor share it: what is not positive, and what is a millionth of the
    largest.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    reach = finite + [error for error in errors if math.isfinite(error)]
    return {
        "floor": log_floor(finite),
        "log": log_scale(finite, reach),
        "linear": linear_scale(reach),
    }


def log_floor(values: Sequence[float]) -> float:
    positive = [value for value in values if value > 0] or [1e-6, 1.0]
    return max(min(positive), max(positive) * LOG_RANGE)


def log_scale(values: Sequence[float], reach: Sequence[float]) -> dict[str, Any]:
    floor = log_floor(values)
    largest = max(reach) if max(reach) > 0 else 1.0
    top = max(largest, floor * ROUNDING)
    return {"low": math.log10(floor), "high": math.log10(top), "ticks": log_ticks(floor, top)}


def linear_scale(reach: Sequence[float]) -> dict[str, Any]:
    low = min(0.0, *reach)
    high = max(0.0, *reach)
    if high <= low:
        high = low + 1.0
    places = [(value - low) / (high - low) for value in linear_ticks(low, high)]
    return {"low": low, "high": high, "ticks": places}


def log_ticks(floor: float, top: float) -> list[float]:
    """Powers of ten between the ends, or finer steps where there are fewer than two; as shares of
    the scale.
    """
    low = math.log10(floor)
    high = math.log10(top)
    values = [floor, top]
    for steps in LOG_STEPS:
        found = steps_between(steps, floor, top)
        if len(found) >= 2:
            values = found[:: max(1, len(found) // 5)]
            break
    return [(math.log10(value) - low) / (high - low) for value in values]


def steps_between(steps: Sequence[float], floor: float, top: float) -> list[float]:
    """The multiples `steps` of powers of ten that lie between the ends."""
    found = []
    for power in range(math.floor(math.log10(floor)), math.ceil(math.log10(top)) + 1):
        for step in steps:
            value = step * 10.0**power
            if floor / ROUNDING <= value <= top * ROUNDING:
                found.append(value)
    return found


def linear_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values between the ends: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    base = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * base for factor in (1, 2, 5, 10) if factor * base >= raw)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def placed(field: str, scales: str) -> str:
    """Vega: a field's share of the axis. `scales`: an expression that gives `two_scales`."""
    value = f"(colour == 'log' ? log(max({field}, {scales}.floor)) / LN10 : {field})"
    scale = f"{scales}[colour]"
    return f"({value} - {scale}.low) / ({scale}.high - {scale}.low)"


def label(scales: str) -> str:
    """Vega: the value at a tick's share of the axis, datum.value."""
    scale = f"{scales}[colour]"
    value = f"({scale}.low + datum.value * ({scale}.high - {scale}.low))"
    return f"format(colour == 'log' ? pow(10, {value}) : round({value} * 1e9) / 1e9, '.3~g')"


def ticks(scales: str) -> alt.ExprRef:
    """Vega: the ticks' shares of the axis."""
    return alt.ExprRef(f"{scales}[colour].ticks")


def first_values(rows: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
    """The different values of a key, in the order of first use."""
    return list(dict.fromkeys(row[key] for row in rows))
