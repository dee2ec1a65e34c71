"""Loss curves, and what a comparison shows: scores with intervals, cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import altair as alt

from ..records import Comparison
from .axis import Rows, number

# --- loss curve -----------------------------------------------------------------------------------


def curve_rows(metrics: Iterable[Mapping[str, Any]], keys: Iterable[str] | None = None) -> Rows:
    """Metric lines ({"step": n, name: number, ...}) as rows (step, name, value). Without `keys`:
    the losses, else all.
    """
    lines = list(metrics)
    if keys is None:
        names = list(
            dict.fromkeys(k for line in lines for k, v in line.items() if k != "step" and number(v))
        )
        keys = [
            k for k in names if "loss" in k or k in ("error", "feature", "output", "task")
        ] or names
    wanted = list(keys)
    return [
        {"step": line["step"], "name": key, "value": float(line[key])}
        for line in lines
        if number(line.get("step"))
        for key in wanted
        if number(line.get(key))
    ]


def curve_chart(rows: Rows, *, log: bool = True, width: int = 620) -> alt.Chart:
    """Losses over steps; points arrive in the named dataset `points`."""
    scale = alt.Scale(type="log", nice=False) if log else alt.Scale(zero=False)
    base = alt.Chart(
        alt.NamedData(name="points"), datasets={"points": rows}, width=width, height=260
    )
    if log:
        base = base.transform_filter("datum.value > 0")
    return base.mark_line(strokeWidth=1.6, clip=True).encode(
        alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickMinStep=1)),
        alt.Y("value:Q", title=None, scale=scale),
        alt.Color("name:N", title=None, legend=alt.Legend(orient="top")),
        tooltip=["name:N", "step:Q", alt.Tooltip("value:Q", format=".4g")],
    )


# --- comparison -----------------------------------------------------------------------------------


def score_rows(comparison: Comparison) -> Rows:
    """One row per model, scorer and category, each with its interval where there is one."""
    rows: Rows = []
    several = len({scorer for model in comparison.models for scorer in model.scores}) > 1
    for model in comparison.models:
        for scorer, score in model.scores.items():
            for category, value in {"overall": score.overall, **score.by_category}.items():
                low, high = score.interval(category)
                row = {
                    "model": model.name,
                    "scorer": scorer,
                    "category": category,
                    "label": f"{scorer}: {category}" if several else category,
                    "score": value,
                    "low": low,
                    "high": high,
                }
                rows.append(row)
    return rows


def score_chart(rows: Rows, *, width: int = 620) -> alt.LayerChart:
    """Scores per category as points with their intervals, one colour a model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    base = alt.Chart(alt.Data(values=rows), width=width, height=alt.Step(16)).encode(
        alt.Y("label:N", title=None, sort=None),
        alt.YOffset("model:N", sort=models),
        alt.Color(
            "model:N", title=None, sort=models, legend=alt.Legend(orient="top", labelLimit=260)
        ),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        alt.X("score:Q", title="score"),
        tooltip=[
            "model:N",
            "scorer:N",
            "category:N",
            alt.Tooltip("score:Q", format=".3g"),
            alt.Tooltip("low:Q", format=".3g"),
            alt.Tooltip("high:Q", format=".3g"),
        ],
    )
    bars = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(alt.X("low:Q"), alt.X2("high:Q"))
    )
    return bars + points


def cost_rows(comparison: Comparison) -> Rows:
    """Cost and retention per model; shares are of the first model."""
    first = comparison.models[0] if comparison.models else None
    return [
        {
            "model": m.name,
            "parameters": m.parameters,
            "share": m.parameters / first.parameters if first and first.parameters else None,
            "bytes": m.bytes,
            "ms per step": m.ms_per_step,
            "speedup": first.ms_per_step / m.ms_per_step if first and m.ms_per_step else None,
            **{f"retention {scorer}": share for scorer, share in m.retention.items()},
        }
        for m in comparison.models
    ]
