"""The curves of a run, one panel a quantity: the loss with its parts, the losses of blocks, the
learning rate, the speed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import altair as alt

from .axis import Rows, number

Line = Mapping[str, Any]  # of metrics.jsonl: {"step": n, name: number, ..}
TOTAL = "loss"
BLOCK = "loss/"  # before the name of a student block
TITLES = {  # of the panels, in their order
    "loss": "loss",
    "blocks": "loss of each student block, mean",
    "guidance_gap": "guidance gap",
    "lr": "learning rate",
    "speed": "samples / s",
    "gradient_norm": "gradient norm",
}
PANELS = {"samples_per_second": "speed"}  # of names that have a panel of another name
SMALL = ("guidance_gap", "lr", "speed", "gradient_norm")  # low panels, each with a scale of its own
ON_LOG = ("loss", "guidance_gap", "gradient_norm")  # panels that may be logarithmic
NOT_DRAWN = (
    *("step", "time", "stage_step", "timestep", "group", "block", "guidance_gap_cosine"),
    *("bytes", "plans", "seconds", "undecided"),
)
LOSSES = ("error", "feature", "output", "task")  # parts where no line has the total
FIRST_COLOUR = "#3a7ca5"
COLOURS = (
    *("#e9a03b", "#d1495b", "#3d9a6a", "#9467bd", "#5bb5c9"),
    *("#b0785a", "#d685b8", "#9aa33b", "#8a8f99"),
)
BLOCK_LINES = 150  # lines of a history whose losses of blocks become rows
COLUMNS = 75  # of the panel of blocks
SMOOTHING = 5  # points on either side
LABELS = 58  # pixels left of a panel
HEIGHTS = {"loss": 240}
LOW = 70

# --- rows -----------------------------------------------------------------------------------------


def curve_rows(metrics: Iterable[Line], keys: Iterable[str] | None = None) -> Rows:
    """Metric lines as rows (panel, name, step, time, value). time: milliseconds since 1970, None
    where a line has none.

    Without `keys`: losses, learning rate and speed; all numbers where no line has a loss. Losses of
    blocks are those of at most 150 lines, evenly.
    """
    lines = [line for line in metrics if number(line.get("step"))]
    only = None if keys is None else set(keys)
    stride = -(-len(lines) // BLOCK_LINES) or 1
    rows: Rows = []
    for index, line in enumerate(lines):
        for name, value in line.items():
            panel = panel_of(name, TOTAL in line)
            if not panel or not number(value) or (only is not None and name not in only):
                continue
            if panel != "blocks" or index % stride == 0:
                rows.append(curve_row(panel, line, name))
    if only is None and any(row["panel"] == "loss" for row in rows):
        rows = [row for row in rows if row["panel"] != "other"]
    return rows


def curve_row(panel: str, line: Line, name: str) -> dict[str, Any]:
    return {
        "panel": panel,
        "name": name,
        "step": line["step"],
        "time": milliseconds(line.get("time")),
        "value": float(line[name]),
    }


def milliseconds(seconds: Any) -> int | None:
    return round(1000 * seconds) if number(seconds) else None


def panel_of(name: str, has_total: bool) -> str:
    """The panel of a name; "other" where nothing is known of it, empty where it is not drawn.

    has_total: its line has the total loss, so that what is not known is one of its parts.
    """
    if name in NOT_DRAWN or name.startswith("estimated_"):
        return ""
    if name.startswith(BLOCK):
        return "blocks"
    panel = PANELS.get(name, name)
    if panel in SMALL:
        return panel
    return "loss" if has_total or "loss" in name or name in LOSSES else "other"


def curve_series(rows: Rows) -> dict[str, list[str]]:
    """The names of each panel, in the order of the panels; the total loss first."""
    names: dict[str, dict[str, None]] = {panel: {} for panel in TITLES}
    for row in rows:
        names.setdefault(row["panel"], {})[row["name"]] = None
    other = names.pop("other", {})
    if not names["loss"]:
        names["loss"] = other
    if TOTAL in names["loss"]:
        names["loss"] = {TOTAL: None, **names["loss"]}
    return {panel: list(of_panel) for panel, of_panel in names.items() if of_panel}


def curve_colours(names: list[str]) -> dict[str, str]:
    """The colour of each line of the first panel."""
    colours = (FIRST_COLOUR, *COLOURS)
    return {name: colours[index % len(colours)] for index, name in enumerate(names)}


# --- chart ----------------------------------------------------------------------------------------


def curve_chart(
    rows: Rows,
    *,
    log: bool = True,
    x: str = "step",
    smoothing: int = SMOOTHING,
    width: int = 620,
    legend: bool = True,
) -> alt.VConcatChart:
    """A panel for each quantity of the rows, one below the other: lines, and the losses of blocks as
    a heat strip.

    Points arrive in the named dataset `points`; the parameter `hidden` lists names of lines that are
    not drawn. x: "step" or "time". smoothing: points on either side that a line is the mean of; the
    points themselves are then faint.
    """
    series = curve_series(rows) or {"loss": [TOTAL]}
    panels: list[Any] = []
    for panel, names in series.items():
        axis = x_axis(x, is_last=panel == list(series)[-1])
        if panel == "blocks":
            drawing: Any = block_panel(names, axis, x)
        else:
            lines = LinePanel(panel, names, axis, log and panel in ON_LOG)
            drawing = lines.chart(0 if panel == "lr" else smoothing, legend and panel == "loss")
        panels.append(drawing.properties(width=width, title=title_of(panel, names)))
    chart = alt.vconcat(*panels, spacing=14, data=alt.NamedData(name="points"))
    chart = chart.resolve_scale(color="independent").add_params(alt.param(name="hidden", value=[]))
    chart.datasets = {"points": rows}
    return cast(alt.VConcatChart, chart)


def title_of(panel: str, names: list[str]) -> alt.TitleParams:
    """The panel's quantity, over its left end."""
    text = TITLES[panel]
    if panel == "loss" and len(names) == 1:
        text = names[0]
    return alt.TitleParams(text, anchor="start", frame="group", fontSize=12, fontWeight=500)


def x_axis(x: str, is_last: bool) -> alt.X:
    """Step or time; its title stands under the last panel alone."""
    scale = alt.Scale(nice=False, zero=False)
    if x == "time":
        lines = "[timeFormat(datum.value, '%H:%M:%S'), timeFormat(datum.value, '%d %b')]"
        axis = alt.Axis(grid=False, labelOverlap=True, tickCount=6, labelExpr=lines)
        return alt.X("time:T", title=None, axis=axis, scale=scale)
    axis = alt.Axis(grid=False, tickMinStep=1, tickCount=10, format=",d", labelOverlap=True)
    return alt.X("step:Q", title="step" if is_last else None, axis=axis, scale=scale)


@dataclass(frozen=True)
class LinePanel:
    """Lines over their faint points, a dot at the last one, and a rule at the pointer that gives all
    values.
    """

    panel: str
    names: list[str]
    x: alt.X
    log: bool

    def chart(self, smoothing: int, legend: bool) -> alt.LayerChart:
        base = alt.Chart().transform_filter(alt.FieldOneOfPredicate("name", self.names))
        if self.log:
            base = base.transform_filter("datum.value > 0")
        shown = base.transform_filter("indexof(hidden, datum.name) < 0")
        smooth = shown.transform_window(
            smooth="mean(value)",
            frame=[-smoothing, smoothing],
            groupby=["name"],
            sort=[alt.SortField("step")],
        )
        last = smooth.transform_joinaggregate(last="max(step)", groupby=["name"])
        last = last.transform_filter("datum.step == datum.last")
        colour = self.colour(legend)
        y = self.y("smooth:Q")
        layers = [
            smooth.mark_line(strokeWidth=2, clip=True).encode(self.x, y, colour),
            last.mark_point(filled=True, size=36, opacity=1).encode(self.x, y, colour),
            self.pointer_rule(base),
        ]
        if smoothing:
            faint = shown.mark_line(strokeWidth=1, opacity=0.3, clip=True)
            layers.insert(0, faint.encode(self.x, self.y("value:Q"), colour))
        return cast(alt.LayerChart, alt.layer(*layers, height=HEIGHTS.get(self.panel, LOW)))

    def colour(self, legend: bool) -> alt.Color:
        scale = alt.Scale(domain=self.names, range=list(curve_colours(self.names).values()))
        shown = alt.Legend(orient="top", columns=4) if legend else None
        return alt.Color("name:N", title=None, scale=scale, legend=shown)

    def y(self, field: str) -> alt.Y:
        """The labels of every panel take the same room, so that steps stand below each other."""
        count = 6 if self.panel == "loss" else 3
        axis = alt.Axis(minExtent=LABELS, maxExtent=LABELS, tickCount=count, format="~g")
        scale = alt.Scale(type="log", nice=False) if self.log else alt.Scale(zero=False)
        return alt.Y(field, title=None, scale=scale, axis=axis)

    def pointer_rule(self, base: alt.Chart) -> alt.Chart:
        """A rule at the step nearest to the pointer, with the values of all lines there."""
        hover = alt.selection_point(
            f"hover_{self.panel}",
            fields=["step"],
            nearest=True,
            on="pointermove",
            clear="pointerout",
            empty=False,
        )
        tooltip = [alt.Tooltip("step:Q", format=",")]
        for name in self.names:
            field = name.replace(".", "\\.")
            tooltip.append(alt.Tooltip(field, type="quantitative", format=".4~g", title=name))
        return (
            base.transform_pivot("name", value="value", groupby=["step", "time"])
            .mark_rule(strokeWidth=1, color="#8a8f99")
            .encode(
                self.x,
                opacity=alt.when(hover).then(alt.value(1)).otherwise(alt.value(0)),
                tooltip=tooltip,
            )
            .add_params(hover)
        )


def block_panel(names: list[str], x: alt.X, by: str) -> alt.Chart:
    """A row a student block, a column a stretch of steps: the mean loss, on a logarithmic scale."""
    prefix = json.dumps(common_prefix(names))
    start = x.copy()
    start.shorthand = "start:T" if by == "time" else "start:Q"
    height = max(5, min(16, 320 // len(names)))
    return (
        alt.Chart(height=alt.Step(height))
        .transform_filter("datum.panel == 'blocks' && datum.value > 0")
        .transform_joinaggregate(low=f"min({by})", high=f"max({by})", count=f"distinct({by})")
        .transform_calculate(
            width=f"(datum.high - datum.low) / max(1, min({COLUMNS}, datum.count) - 1) || 1"
        )
        .transform_calculate(column=f"floor((datum.{by} - datum.low) / datum.width + 1e-6)")
        .transform_calculate(
            start="datum.low + datum.column * datum.width", end="datum.start + datum.width"
        )
        .transform_aggregate(loss="mean(value)", groupby=["name", "start", "end"])
        .mark_rect(clip=True)
        .encode(
            start,
            alt.X2("end"),
            alt.Y(
                "name:N",
                sort=names,
                scale=alt.Scale(domain=names),
                title=None,
                axis=alt.Axis(
                    minExtent=LABELS,
                    maxExtent=LABELS,
                    labelExpr=f"replace(datum.label, {prefix}, '')",
                    labelOverlap=True,
                    ticks=False,
                ),
            ),
            alt.Color(
                "loss:Q",
                title=None,
                scale=alt.Scale(type="log", scheme="viridis"),
                legend=alt.Legend(orient="top", format="~g", gradientLength=200),
            ),
            tooltip=[
                alt.Tooltip("name:N", title="block"),
                alt.Tooltip("start:Q", title=f"from {by}", format=",.0f"),
                alt.Tooltip("end:Q", title="to", format=",.0f"),
                alt.Tooltip("loss:Q", title="mean loss", format=".3~g"),
            ],
        )
    )


def common_prefix(names: list[str]) -> str:
    """What all names of blocks begin with: "loss/", and the stack where there is only one."""
    stacks = {name.rpartition(".")[0] + "." for name in names}
    return stacks.pop() if len(stacks) == 1 else BLOCK
