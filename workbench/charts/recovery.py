"""Recoverability beside sensitivity: how far each span was from the teacher before and after
training, over what its blocks score.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from ..records import SensitivityMap, Teacher
from .axis import BAR, COLOURS, GAP, WIDTH, Rows, number, offsets, titles
from .maps import over_timesteps

EDITS = ("zero-shot", "recovered")  # of a map of metric recovery
WHEN = {"before": COLOURS["drop"], "after": COLOURS["keep"]}


def recovery_rows(
    recoverability: Iterable[Mapping[str, Any]] | SensitivityMap,
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
    start = offsets(teacher)
    found = (
        _of_map(recoverability)
        if isinstance(recoverability, SensitivityMap)
        else _of_run(recoverability, stage)
    )
    spans: Rows = []
    for row in found:
        if row["stack"] in start and row["last"] < teacher.stack(row["stack"]).depth:
            at = start[row["stack"]]
            about = {
                "from": at + row["first"],
                "to": at + row["last"] + 1,
                "middle": at + (row["first"] + row["last"] + 1) / 2,
                "span": f"{row['stack']} {row['first']}-{row['last']}",
                "group": row["group"],
                "unit": row["unit"],
                "repaired": 1 - row["after"] / row["before"],
                "before": row["before"],
                "after": row["after"],
            }
            spans += [{**about, "when": when, "value": row[when]} for when in WHEN]
    stacks = [
        {"at": start[s.path], "blocks": s.depth, "name": f"{s.path} ({s.kind}, {s.depth})"}
        for s in teacher.stacks
    ]
    return {
        "spans": spans,
        "blocks": _blocks(sensitivity, start, edit) if sensitivity else [],
        "stacks": stacks,
    }


def stages(recoverability: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the stages that measured their spans, in order."""
    return list(dict.fromkeys(str(row["stage"]) for row in recoverability if _whole(row)))


def _whole(row: Mapping[str, Any]) -> bool:
    return (
        number(row.get("before"))
        and number(row.get("after"))
        and row["before"] > 0
        and row["after"] > 0
    )


def _of_run(rows: Iterable[Mapping[str, Any]], stage: str | None) -> Rows:
    told = [row for row in rows if _whole(row)]
    wanted = stage if stage is not None else told[-1]["stage"] if told else None
    return [{**row, "group": "", "unit": "feature loss"} for row in told if row["stage"] == wanted]


def _of_map(measured: SensitivityMap) -> Rows:
    scores = {
        (row.edit, row.stack, row.block, row.last): row.score
        for row in over_timesteps(measured)
        if row.last is not None
    }
    rows = [
        {
            "stack": stack,
            "first": first,
            "last": last,
            "before": value,
            "after": scores.get((EDITS[1], stack, first, last)),
            "group": f"{last - first + 1} blocks",
            "unit": "change",
        }
        for (edit, stack, first, last), value in scores.items()
        if edit == EDITS[0] and last is not None
    ]
    return [row for row in rows if _whole(row)]


def _blocks(measured: SensitivityMap, start: Mapping[str, int], edit: str) -> Rows:
    """One row a block: the plain mean over timesteps of its score."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in measured.rows:
        if row.edit == edit and row.last is None and row.stack in start:
            found.setdefault((row.stack, row.block), []).append(row.score)
    return [
        {
            "from": start[stack] + block + GAP,
            "to": start[stack] + block + 1 - GAP,
            "block": block,
            "stack": stack,
            "edit": edit,
            "value": sum(values) / len(values),
        }
        for (stack, block), values in found.items()
    ]


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
    groups = list(dict.fromkeys(row["group"] for row in rows["spans"]))
    for group in groups:
        last = not rows["blocks"] and group == groups[-1]
        views.append(
            _spans(rows, group, scale, last).properties(
                width=width, height=190 if len(groups) == 1 else 110
            )
        )
    if rows["blocks"]:
        views.append(_bars(rows, scale).properties(width=width, height=80))
    chart = alt.vconcat(*views, spacing=6, usermeta={"room": 110, "legend": "top"})
    return chart.resolve_scale(x="shared", color="shared").configure_view(stroke=None)


def _axis(rows: dict[str, Rows], scale: alt.Scale, shown: bool) -> alt.X:
    """Block numbers under the middle of each column, counted in each stack."""
    if not shown:
        return alt.X("from:Q", scale=scale, axis=None)
    at = "floor(datum.value)"
    for begin in [row["at"] for row in rows["stacks"]][1:]:
        at = f"(datum.value >= {begin} ? floor(datum.value) - {begin} : {at})"
    total = sum(row["blocks"] for row in rows["stacks"])
    title = (
        f"block of {rows['stacks'][0]['name'].split(' ')[0]}"
        if len(rows["stacks"]) == 1
        else "block, counted in each stack"
    )
    return alt.X(
        "from:Q",
        scale=scale,
        title=title,
        axis=alt.Axis(
            values=[b + 0.5 for b in range(total)],
            labelExpr=at,
            labelOverlap=True,
            labelAngle=0,
            ticks=False,
            grid=False,
            domain=False,
        ),
    )


def _spans(rows: dict[str, Rows], group: str, scale: alt.Scale, last: bool) -> alt.LayerChart:
    mine = [row for row in rows["spans"] if row["group"] == group]
    y = alt.Y(
        "value:Q",
        scale=alt.Scale(type="log", nice=False, padding=8),
        title=[group, mine[0]["unit"]] if group else mine[0]["unit"],
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
    base = alt.Chart(alt.Data(values=mine))
    middle = alt.X("middle:Q", scale=scale, axis=None)
    joined = (
        alt.Chart(alt.Data(values=[row for row in mine if row["when"] == "after"]))
        .mark_rule(color=BAR, strokeWidth=2)
        .encode(
            middle,
            alt.Y("before:Q", scale=alt.Scale(type="log", nice=False, padding=8)),
            alt.Y2("after:Q"),
            tooltip=tips,
        )
    )
    width = base.mark_rule(strokeWidth=3, opacity=0.55 if group else 0.9).encode(
        _axis(rows, scale, last), alt.X2("to:Q"), y, colour, tooltip=tips
    )
    points = base.mark_point(filled=True, size=44, opacity=1).encode(
        middle, y, colour, tooltip=tips
    )
    return joined + width + points


def _bars(rows: dict[str, Rows], scale: alt.Scale) -> alt.Chart:
    """Zero-shot sensitivity of the same blocks."""
    edit = rows["blocks"][0]["edit"]
    positive = [row["value"] for row in rows["blocks"] if row["value"] > 0]
    floor = min(positive, default=1e-6) * 0.7
    shown = [{**row, "value": max(row["value"], floor), "floor": floor} for row in rows["blocks"]]
    return (
        alt.Chart(alt.Data(values=shown))
        .mark_rect(color=BAR, clip=True)
        .encode(
            _axis(rows, scale, True),
            alt.X2("to:Q"),
            alt.Y2("floor:Q"),
            alt.Y(
                "value:Q",
                scale=alt.Scale(type="log", nice=False),
                title=["sensitivity", f"({edit})"],
                axis=alt.Axis(format=".1~g", tickCount=3, grid=False),
            ),
            tooltip=[
                "stack:N",
                "block:Q",
                alt.Tooltip("value:Q", format=".3g", title=f"{edit}, mean over timesteps"),
            ],
        )
    )
