"""Recoverability beside sensitivity: how far each span was from the teacher before and after
training, over what its blocks score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from ..records import Row, SensitivityMap, Teacher
from .axis import (
    BAR,
    COLOURS,
    GAP,
    WIDTH,
    Rows,
    block_title,
    first_values,
    number,
    numbered_axis,
    offsets,
    titles,
)
from .shapes import over_timesteps

BEFORE, AFTER = "zero-shot", "recovered"  # the edits of a map of metric recovery
WHEN = {"before": COLOURS["drop"], "after": COLOURS["keep"]}
Measured = Mapping[
    str, Any
]  # stack, first, last, before, after, stage: of a run's result or a card


def recovery_rows(
    recoverability: Iterable[Measured] | SensitivityMap,
    teacher: Teacher,
    sensitivity: SensitivityMap | None = None,
    *,
    stage: str | None = None,
    edit: str = "drop",
) -> dict[str, Rows]:
    """What `recovery_chart` draws: `spans` (two rows each, before and after; the loss of a run is
    the normalised feature loss, of a map the relative squared change of the prediction; lower is
    better), `blocks` (their scores), and the names of the `stacks`.

    `recoverability`: the rows of a distillation's result or of a card (`stage`: which one's, else
    the last), or a map of metric recovery, whose spans overlap and are grouped by length.
    `sensitivity`: whose scores of `edit` stand below, plain means over timesteps, higher = keep.
    """
    starts = offsets(teacher)
    if isinstance(recoverability, SensitivityMap):
        measured = spans_of_map(recoverability)
    else:
        measured = spans_of_run(recoverability, stage)
    spans: Rows = []
    for row in measured:
        if row["stack"] in starts and row["last"] < teacher.stack(row["stack"]).depth:
            spans += span_rows(row, starts[row["stack"]])
    stacks = []
    for stack in teacher.stacks:
        name = f"{stack.path} ({stack.kind}, {stack.depth})"
        stacks.append({"at": starts[stack.path], "blocks": stack.depth, "name": name})
    blocks = block_rows(sensitivity, starts, edit) if sensitivity else []
    return {"spans": spans, "blocks": blocks, "stacks": stacks}


def span_rows(row: Mapping[str, Any], start: int) -> Rows:
    """A span before and after training; `start`: where its stack begins on the block axis."""
    about = {
        "from": start + row["first"],
        "to": start + row["last"] + 1,
        "middle": start + (row["first"] + row["last"] + 1) / 2,
        "span": f"{row['stack']} {row['first']}-{row['last']}",
        "group": row["group"],
        "unit": row["unit"],
        "repaired": 1 - row["after"] / row["before"],
        "before": row["before"],
        "after": row["after"],
    }
    return [{**about, "when": when, "value": row[when]} for when in WHEN]


def stages(recoverability: Iterable[Measured]) -> list[str]:
    """Names of the stages that measured their spans, in order."""
    return list(dict.fromkeys(str(row["stage"]) for row in recoverability if complete(row)))


def complete(row: Measured) -> bool:
    """Whether a span has a positive number before and after."""
    return all(number(row.get(when)) and row[when] > 0 for when in WHEN)


def spans_of_run(rows: Iterable[Measured], stage: str | None) -> Rows:
    """The spans of one stage of a distillation; of the last one unless it is named."""
    measured = [row for row in rows if complete(row)]
    if stage is None and measured:
        stage = measured[-1]["stage"]
    return [
        {**row, "group": "", "unit": "feature loss"} for row in measured if row["stage"] == stage
    ]


def spans_of_map(measured: SensitivityMap) -> Rows:
    """The spans of a map of metric recovery, grouped by length."""
    rows = [row for row in over_timesteps(measured) if row.last is not None]
    after = {(row.stack, row.block, row.last): row.score for row in rows if row.edit == AFTER}
    spans = [span_of_map(row, after) for row in rows if row.edit == BEFORE]
    return [span for span in spans if complete(span)]


def span_of_map(row: Row, after: Mapping[tuple[str, int, int | None], float]) -> dict[str, Any]:
    assert row.last is not None
    return {
        "stack": row.stack,
        "first": row.block,
        "last": row.last,
        "before": row.score,
        "after": after.get((row.stack, row.block, row.last)),
        "group": f"{row.last - row.block + 1} blocks",
        "unit": "change",
    }


def block_rows(measured: SensitivityMap, starts: Mapping[str, int], edit: str) -> Rows:
    """One row a block: the plain mean over timesteps of its score."""
    scores: dict[tuple[str, int], list[float]] = {}
    for row in measured.rows:
        if row.edit == edit and row.last is None and row.stack in starts:
            scores.setdefault((row.stack, row.block), []).append(row.score)
    return [
        {
            "from": starts[stack] + block + GAP,
            "to": starts[stack] + block + 1 - GAP,
            "block": block,
            "stack": stack,
            "edit": edit,
            "value": sum(values) / len(values),
        }
        for (stack, block), values in scores.items()
    ]


# --- the chart ------------------------------------------------------------------------------------


def recovery_chart(rows: dict[str, Rows], *, width: int = WIDTH) -> alt.VConcatChart:
    """Spans above, on a log scale: red before training, blue after, as wide as their teacher
    blocks; block scores below, same axis.
    """
    total = sum(row["blocks"] for row in rows["stacks"])
    scale = alt.Scale(domain=[0, total], nice=False)
    views: list[Any] = []
    if len(rows["stacks"]) > 1:
        names = [(row["at"], row["blocks"], row["name"]) for row in rows["stacks"]]
        views.append(titles(names, alt.X("at:Q", scale=scale, axis=None), width))
    groups = first_values(rows["spans"], "group")
    height = 190 if len(groups) == 1 else 110
    for group in groups:
        lowest = not rows["blocks"] and group == groups[-1]
        spans = [row for row in rows["spans"] if row["group"] == group]
        chart = span_chart(spans, block_x(rows["stacks"], scale, lowest), scale)
        views.append(chart.properties(width=width, height=height))
    if rows["blocks"]:
        bars = block_chart(rows["blocks"], block_x(rows["stacks"], scale, True))
        views.append(bars.properties(width=width, height=80))
    whole = alt.vconcat(*views, spacing=6, usermeta={"room": 110, "legend": "top"})
    return whole.resolve_scale(x="shared", color="shared").configure_view(stroke=None)


def block_x(stacks: Rows, scale: alt.Scale, numbered: bool) -> alt.X:
    """The block axis; with the blocks' numbers, counted in each stack, under the lowest chart."""
    if not numbered:
        return alt.X("from:Q", scale=scale, axis=None)
    starts = [row["at"] for row in stacks]
    total = sum(row["blocks"] for row in stacks)
    title = block_title([row["name"].split(" ")[0] for row in stacks])
    return alt.X("from:Q", scale=scale, axis=numbered_axis(starts, total, title))


def span_chart(spans: Rows, x: alt.X, scale: alt.Scale) -> alt.LayerChart:
    """One group of spans: a rule as wide as the span before and after, joined in the middle."""
    group = spans[0]["group"]
    unit = spans[0]["unit"]
    log = alt.Scale(type="log", nice=False, padding=8)
    y = alt.Y(
        "value:Q",
        scale=log,
        title=[group, unit] if group else unit,
        axis=alt.Axis(format=".1~g", tickCount=5, gridOpacity=0.4),
    )
    colour = alt.Color(
        "when:N",
        title=None,
        scale=alt.Scale(domain=list(WHEN), range=list(WHEN.values())),
        legend=alt.Legend(orient="top"),
    )
    tips = [
        alt.Tooltip("span:N"),
        alt.Tooltip("before:Q", format=".3g"),
        alt.Tooltip("after:Q", format=".3g"),
        alt.Tooltip("repaired:Q", format=".0%"),
    ]
    middle = alt.X("middle:Q", scale=scale, axis=None)
    joined = (
        alt.Chart(alt.Data(values=[row for row in spans if row["when"] == "after"]))
        .mark_rule(color=BAR, strokeWidth=2)
        .encode(middle, alt.Y("before:Q", scale=log), alt.Y2("after:Q"), tooltip=tips)
    )
    base = alt.Chart(alt.Data(values=spans))
    width = base.mark_rule(strokeWidth=3, opacity=0.55 if group else 0.9).encode(
        x, alt.X2("to:Q"), y, colour, tooltip=tips
    )
    points = base.mark_point(filled=True, size=44, opacity=1).encode(
        middle, y, colour, tooltip=tips
    )
    return joined + width + points


def block_chart(blocks: Rows, x: alt.X) -> alt.Chart:
    """Sensitivity of the same blocks before training."""
    edit = blocks[0]["edit"]
    positive = [row["value"] for row in blocks if row["value"] > 0]
    floor = min(positive, default=1e-6) * 0.7
    shown = [{**row, "value": max(row["value"], floor), "floor": floor} for row in blocks]
    return (
        alt.Chart(alt.Data(values=shown))
        .mark_rect(color=BAR, clip=True)
        .encode(
            x,
            alt.X2("to:Q"),
            alt.Y2("floor:Q"),
            alt.Y(
                "value:Q",
                scale=alt.Scale(type="log", nice=False),
                title=["sensitivity", f"({edit})"],
                axis=alt.Axis(format=".1~g", tickCount=3, grid=False),
            ),
            tooltip=[
                alt.Tooltip("stack:N"),
                alt.Tooltip("block:Q"),
                alt.Tooltip("value:Q", format=".3g", title=f"{edit}, mean over timesteps"),
            ],
        )
    )
