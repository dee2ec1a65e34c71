"""Charts as data first, figure second: `*_rows(record)` is plain rows, `*_chart(rows)` an Altair chart of them.

Blocks run along x in teacher order, all stacks on one axis: column `at` is a block's place on it. The app and the
notebook draw the same charts; both feed the named datasets `marks`, `ribbons` and `student` without drawing the map again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from .records import Comparison, Plan, SensitivityMap, Span, Teacher

Rows = list[dict[str, Any]]
COLOURS = {"keep": "#3a7ca5", "drop": "#d1495b", "merge": "#e9a03b"}
BAR = "#8aa6b8"
GAP = 0.05  # between neighbours in the strips, in blocks
WIDTH = 860  # the app replaces it by the room there is


# --- sensitivity ---------------------------------------------------------------------------------------------------


def offsets(teacher: Teacher) -> dict[str, int]:
    """Stack path -> place of its block 0 on the block axis."""
    out, at = {}, 0
    for stack in teacher.stacks:
        out[stack.path] = at
        at += stack.depth
    return out


def time_label(timestep: float | None) -> str:
    return "all" if timestep is None else f"{timestep:.0f}"


def sensitivity_rows(sensitivity: SensitivityMap, teacher: Teacher, edit: str = "drop") -> Rows:
    """One row per cell: place, score, standard error, and `shade`, the score kept positive for a log colour scale."""
    start = offsets(teacher)
    cells = [row for row in sensitivity.rows if row.edit == edit and row.stack in start and row.last is None]
    floor = min((row.score for row in cells if row.score > 0), default=1e-6)
    return [
        {
            "at": start[row.stack] + row.block, "end": start[row.stack] + row.block + 1, "stack": row.stack, "block": row.block,
            "timestep": time_label(row.timestep), "score": row.score, "shade": max(row.score, floor),
            "reading": reading(row.score, row.stderr),
        }
        for row in cells
    ]


def reading(score: float, stderr: float | None) -> str:
    return f"{score:.3g}" if stderr is None else f"{score:.3g} ± {stderr:.1g}"


def block_rows(scores: Mapping[tuple[str, int], float], teacher: Teacher) -> Rows:
    """One row per block: its score aggregated over timesteps (`plans.block_scores`)."""
    start = offsets(teacher)
    return [{"at": start[path] + block, "end": start[path] + block + 1, "stack": path, "block": block, "score": score}
            for (path, block), score in scores.items() if path in start]


def weight_rows(weights: Mapping[float | None, tuple[float, float]]) -> Rows:
    """How much each timestep counts (`plans.timestep_weights`): its factor, as a share of the largest."""
    top = max((factor for factor, _ in weights.values()), default=0.0) or 1.0
    return [{"timestep": time_label(time), "weight": factor / top} for time, (factor, _) in weights.items()]


def plan_rows(plan: Plan, teacher: Teacher) -> dict[str, Rows]:
    """The plan as a picture: `marks` (teacher blocks), `ribbons` (spans), `student` (student blocks, centred below)."""
    start = offsets(teacher)
    out: dict[str, Rows] = {"marks": [], "ribbons": [], "student": []}
    for stack in teacher.stacks:
        spans = plan.stacks[stack.path]
        left = start[stack.path] + (stack.depth - len(spans)) / 2
        for number, span in enumerate(spans):
            begin, x = start[stack.path] + span.first, left + number
            kind = "merge" if span.init == "mean" and len(span) > 1 else "keep"
            text = f"{stack.path} {made_of(span)}"
            out["marks"] += [mark_row(start[stack.path], stack.path, block, span, number) for block in range(span.first, span.last + 1)]
            out["ribbons"] += [{"span": f"{stack.path}:{number}", "y": y, "from": a, "to": b, "kind": kind} for y, a, b in
                               ((0, begin + GAP, begin + len(span) - GAP), (1, x + GAP, x + 1 - GAP))]
            out["student"].append({"left": x + GAP, "right": x + 1 - GAP, "stack": stack.path, "student": number, "kind": kind,
                                   "made of": text})
    return out


def mark_row(start: int, path: str, block: int, span: Span, number: int) -> dict[str, Any]:
    mark = "drop" if block not in span.source else "merge" if len(span.source) > 1 else "keep"
    at = start + block
    return {"at": at, "end": at + 1, "left": at + GAP, "right": at + 1 - GAP, "stack": path, "block": block, "mark": mark,
            "glyph": {"keep": "", "drop": "✕", "merge": "+"}[mark], "student": number, "selected": False}


def made_of(span: Span) -> str:
    """A span in words: `4-6, mean, gain 3`."""
    words = [f"{span.first}" if len(span) == 1 else f"{span.first}-{span.last}"]
    if len(span) > 1:
        words.append(span.init)
    if span.gain != 1:
        words.append(f"gain {span.gain:g}")
    if span.stream:
        words.append(f"{span.stream} stream")
    return ", ".join(words + [f"without {part}" for part in span.drop])


def block_scale(teacher: Teacher) -> alt.Scale:
    return alt.Scale(domain=[0, sum(stack.depth for stack in teacher.stacks)], nice=False)


def block_axis(teacher: Teacher, **more: Any) -> alt.Axis:
    """Block numbers under the middle of each column, starting at 0 in every stack."""
    total = sum(stack.depth for stack in teacher.stacks)
    label = "floor(datum.value)"
    for begin in list(offsets(teacher).values())[1:]:
        label = f"(datum.value >= {begin} ? floor(datum.value) - {begin} : {label})"
    return alt.Axis(values=[b + 0.5 for b in range(total)], labelExpr=label, labelOverlap=True, labelAngle=0, ticks=False, grid=False,
                    domain=False, **more)


def sensitivity_chart(teacher: Teacher, cells: Rows, bars: Rows, weights: Rows, plan: dict[str, Rows] | None, *, edit: str = "drop",
                      log: bool = True, unit: str = "", params: bool = False, width: int = WIDTH) -> alt.VConcatChart:
    """Bars per block, the block x timestep map, and the plan beneath, on one block axis. Without cells: the plan alone; with
    plan None: the map alone.

    With `params` the map carries the selections `pick` and `box` (notebooks; the app handles pointers itself).
    """
    alt.data_transformers.disable_max_rows()
    x = alt.X("at:Q", scale=block_scale(teacher), title=None, axis=None)
    rows: list[Any] = [stack_titles(teacher, x).properties(width=width, height=16)] if len(teacher.stacks) > 1 else []
    if cells:
        heat = heatmap(cells, x, teacher, edit, log, unit, params)
        rows += [bar_chart(bars, x, edit, log).properties(width=width, height=64), with_weights(heat, weights, cells, width)]
    if plan is not None:
        rows += plan_views(teacher, x, "glyph:N" if cells else "block:Q", width)
    about = {"map": bool(cells)}  # the app leaves room for weights and legend where there is a map
    data = plan if plan is not None else {"marks": []}
    chart = alt.vconcat(*rows, spacing=4, datasets=data, usermeta=about).resolve_scale(x="shared", color="independent")
    return chart.configure_view(stroke=None)


def plan_views(teacher: Teacher, x: alt.X, text: str, width: int) -> list[Any]:
    """Teacher blocks with their marks, ribbons, student blocks."""
    blocks = strip(teacher, "marks") + glyphs(text) + chosen(x) + caption("teacher")
    student = strip(teacher, "student") + caption("student")
    return [blocks.properties(width=width, height=24), ribbons(teacher).properties(width=width, height=46),
            student.properties(width=width, height=24)]


def time_order(cells: Rows) -> list[str]:
    """Timesteps from noise to picture."""
    return sorted(dict.fromkeys(row["timestep"] for row in cells), key=lambda t: -float(t) if t != "all" else 0.0)


def with_weights(heat: alt.LayerChart, weights: Rows, cells: Rows, width: int) -> alt.HConcatChart:
    order = time_order(cells)
    tall = max(10, min(26, 300 // len(order)))
    return alt.hconcat(heat.properties(width=width, height=tall * len(order)), weight_chart(weights, order, tall), spacing=6)


def selections() -> tuple[alt.Parameter, alt.Parameter]:
    """`pick`: click, with shift or ctrl added to. `box`: drag along the block axis."""
    more = "event.shiftKey||event.ctrlKey||event.metaKey"
    # The clear expression makes a plain press forget the earlier picks, so that selection = pick + box.
    pick = alt.selection_point(name="pick", fields=["at"], toggle=more, empty=False, clear=f"pointerdown[!({more})]")
    return pick, alt.selection_interval(name="box", encodings=["x"], empty=False)


def block_title(teacher: Teacher) -> str:
    return f"block of {teacher.stacks[0].path}" if len(teacher.stacks) == 1 else "block, counted in each stack"


# A block is picked when the box touches it; nothing is dimmed while nothing is picked.
PICKED = ("(!isArray(box.at) && !isArray(pick.at)) || (isArray(box.at) && datum.end > box.at[0] && datum.at < box.at[1])"
          " || (isArray(pick.at) && indexof(pick.at, datum.at) >= 0)")


def heatmap(cells: Rows, x: alt.X, teacher: Teacher, edit: str, log: bool, unit: str, params: bool) -> alt.LayerChart:
    legend = alt.Legend(title=["sensitivity", "higher = keep"], gradientLength=150, format="~g", tickCount=4)
    values = [row["shade"] for row in cells]
    scale = alt.Scale(type="log" if log else "linear", scheme="viridis", domain=[min(values), max(max(values), min(values) * 1.001)])
    axis = alt.X("at:Q", scale=block_scale(teacher), axis=block_axis(teacher, title=block_title(teacher)))
    chart = (
        alt.Chart(alt.Data(values=cells)).mark_rect()
        .encode(
            axis, alt.X2("end:Q"), alt.Y("timestep:N", sort=time_order(cells), title="timestep (1000 = noise)"),
            alt.Color("shade:Q", scale=scale, legend=legend),
            tooltip=[alt.Tooltip("stack:N"), alt.Tooltip("block:Q"), alt.Tooltip("timestep:N"),
                     alt.Tooltip("reading:N", title=f"{edit}: {unit}" if unit else edit)],
        )
    )
    if params:
        chart = chart.encode(opacity=alt.when(PICKED).then(alt.value(1)).otherwise(alt.value(0.35))).add_params(*selections())
    return chart + chosen(axis)


def bar_chart(bars: Rows, x: alt.X, edit: str, log: bool) -> alt.Chart:
    """Per block, aggregated over timesteps. On a log scale bars stand on a floor just below the least."""
    scores = [row["score"] for row in bars]
    log = log and min(scores, default=0.0) > 0
    floor = min(scores) * 0.7 if log else 0.0
    scale = alt.Scale(type="log", domainMin=floor, nice=False) if log else alt.Scale(zero=True)
    axis = alt.Axis(tickCount=3, grid=False, format="~g")
    return (
        alt.Chart(alt.Data(values=bars)).mark_rect(color=BAR)
        .encode(x, alt.X2("end:Q"), alt.Y("score:Q", title=[edit, "weighted"], scale=scale, axis=axis), alt.Y2(datum=floor),
                tooltip=["stack:N", "block:Q", alt.Tooltip("score:Q", format=".3g")])
    )


def weight_chart(weights: Rows, order: list[str], tall: int) -> alt.Chart:
    """How much each timestep counts in the bars."""
    hidden = alt.Axis(labels=False, ticks=False, grid=False)
    return (
        alt.Chart(alt.Data(values=weights), width=44, height=tall * len(order)).mark_bar(color=BAR)
        .encode(alt.Y("timestep:N", sort=order, axis=None),
                alt.X("weight:Q", title="weight", scale=alt.Scale(domain=[0, 1]), axis=hidden),
                tooltip=["timestep:N", alt.Tooltip("weight:Q", format=".2f", title="weight, share of the largest")])
    )


def strip(teacher: Teacher, name: str) -> alt.Chart:
    """A row of blocks: the teacher's, coloured by mark, or the student's, coloured by what they are made of."""
    field = "mark" if name == "marks" else "kind"
    colour = alt.Color(f"{field}:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None)
    tips = ["stack:N", "block:Q", "mark:N", alt.Tooltip("student:Q", title="student block")] if name == "marks" else [
        alt.Tooltip("student:Q", title="student block"), "made of:N"]
    return (
        alt.Chart(alt.NamedData(name=name)).mark_rect(cornerRadius=2)
        .encode(alt.X("left:Q", scale=block_scale(teacher), axis=None), alt.X2("right:Q"), colour, y=alt.value(0), y2=alt.value(24),
                tooltip=tips)
    )


def glyphs(text: str) -> alt.Chart:
    """Marks as signs too, for those who do not see the colours; or block numbers, where no map above has them."""
    return (
        alt.Chart(alt.NamedData(name="marks")).transform_calculate(mid="datum.at + 0.5").mark_text(color="white", fontWeight="bold")
        .encode(alt.X("mid:Q", axis=None), y=alt.value(12), text=text)
    )


def caption(text: str) -> alt.Chart:
    """Left of a strip."""
    return alt.Chart(alt.Data(values=[{}])).mark_text(align="right", text=text).encode(x=alt.value(-8), y=alt.value(12))


def chosen(x: alt.X) -> alt.Chart:
    """The selected blocks, outlined."""
    return (
        alt.Chart(alt.NamedData(name="marks")).transform_filter("datum.selected")
        .mark_rect(fillOpacity=0.14, fill="#ffffff", stroke="#ff3bd4", strokeWidth=2).encode(x, alt.X2("end:Q"))
    )


def ribbons(teacher: Teacher) -> alt.Chart:
    """From each span of teacher blocks down to its student block."""
    scale = block_scale(teacher)
    colour = alt.Color("kind:N", scale=alt.Scale(domain=list(COLOURS), range=list(COLOURS.values())), legend=None)
    return (
        alt.Chart(alt.NamedData(name="ribbons")).mark_area(orient="horizontal", interpolate="monotone", opacity=0.35)
        .encode(alt.X("from:Q", scale=scale, axis=None), alt.X2("to:Q"),
                alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[1, 0], nice=False)), colour, alt.Detail("span:N"))
    )


def stack_titles(teacher: Teacher, x: alt.X) -> alt.Chart:
    start = offsets(teacher)
    rows = [{"at": start[s.path], "name": f"{s.path} ({s.kind}, {s.depth})"} for s in teacher.stacks]
    return alt.Chart(alt.Data(values=rows)).mark_text(align="left", fontWeight="bold", limit=400).encode(x, y=alt.value(8), text="name:N")


# --- loss curve ----------------------------------------------------------------------------------------------------


def curve_rows(metrics: Iterable[Mapping[str, Any]], keys: Iterable[str] | None = None) -> Rows:
    """Metric lines ({"step": n, name: number, ...}) as rows (step, name, value). Without `keys`: the losses, else all."""
    lines = list(metrics)
    if keys is None:
        names = list(dict.fromkeys(k for line in lines for k, v in line.items() if k != "step" and number(v)))
        keys = [k for k in names if "loss" in k or k in ("error", "feature", "output", "task")] or names
    wanted = list(keys)
    return [{"step": line["step"], "name": key, "value": float(line[key])}
            for line in lines if number(line.get("step")) for key in wanted if number(line.get(key))]


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def curve_chart(rows: Rows, *, log: bool = True, width: int = 620) -> alt.Chart:
    """Losses over steps; points arrive in the named dataset `points`."""
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    base = alt.Chart(alt.NamedData(name="points"), datasets={"points": rows}, width=width, height=260)
    if log:
        base = base.transform_filter("datum.value > 0")
    return base.mark_line(strokeWidth=1.6, clip=True).encode(
        alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickMinStep=1)), alt.Y("value:Q", title=None, scale=scale),
        alt.Color("name:N", title=None, legend=alt.Legend(orient="top")),
        tooltip=["name:N", "step:Q", alt.Tooltip("value:Q", format=".4g")])


# --- comparison ----------------------------------------------------------------------------------------------------

INTERVAL = {"overall", "low", "high", "n", "per_image", "intervals", "unit", "direction"}


def score_rows(comparison: Comparison) -> Rows:
    """One row per model, scorer and category, each with its interval where there is one."""
    rows = []
    several = len({scorer for model in comparison.models for scorer in model.scores}) > 1
    for model in comparison.models:
        for scorer, scores in model.scores.items():
            for key, value in scores.items():
                if key in INTERVAL - {"overall"}:
                    continue
                low_high = (scores.get("intervals") or {}).get(key, (None, None))
                score, low, high = interval(value, scores if key == "overall" else dict(zip(("low", "high"), low_high, strict=True)))
                if score is not None:
                    rows.append({"model": model.name, "scorer": scorer, "category": key, "label": f"{scorer}: {key}" if several else key,
                                 "score": score, "low": low, "high": high})
    return rows


def interval(value: Any, around: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """A score is a number, or a mapping with its own interval."""
    if isinstance(value, Mapping):
        around, value = value, value.get("overall", value.get("score", value.get("mean")))
    if not number(value):
        return None, None, None
    low, high = around.get("low"), around.get("high")
    return float(value), float(low) if number(low) else None, float(high) if number(high) else None  # type: ignore[arg-type]


def score_chart(rows: Rows, *, width: int = 620) -> alt.LayerChart:
    """Scores per category as points with their intervals, one colour a model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart(alt.Data(values=rows), width=width, height=alt.Step(16)).encode(
        alt.Y("label:N", title=None, sort=None), alt.YOffset("model:N", sort=models),
        alt.Color("model:N", title=None, sort=models, legend=alt.Legend(orient="top", labelLimit=260)))
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        alt.X("score:Q", title="score"), tooltip=["model:N", "scorer:N", "category:N", alt.Tooltip("score:Q", format=".3g"),
                                                  alt.Tooltip("low:Q", format=".3g"), alt.Tooltip("high:Q", format=".3g")])
    bars = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2).encode(alt.X("low:Q"), alt.X2("high:Q"))
    return bars + points


def cost_rows(comparison: Comparison) -> Rows:
    """Cost and retention per model; shares are of the first model."""
    first = comparison.models[0] if comparison.models else None
    return [
        {"model": m.name, "parameters": m.parameters, "share": m.parameters / first.parameters if first and first.parameters else None,
         "bytes": m.bytes, "ms per step": m.ms_per_step,
         "speedup": first.ms_per_step / m.ms_per_step if first and m.ms_per_step else None,
         **{f"retention {scorer}": share for scorer, share in m.retention.items()}}
        for m in comparison.models
    ]
