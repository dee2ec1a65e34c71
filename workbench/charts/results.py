"""What a comparison shows: scores with intervals, cost."""

from __future__ import annotations

from typing import Any

import altair as alt

from ..records import Comparison, ModelResult
from .axis import Rows, first_values


def score_rows(comparison: Comparison) -> Rows:
    """One row per model, scorer and category, each with its interval where there is one."""
    rows: Rows = []
    for model in comparison.models:
        for scorer, score in model.scores.items():
            for category, value in {"overall": score.overall, **score.by_category}.items():
                low, high = score.interval(category)
                row = {"model": model.name, "scorer": scorer, "category": category}
                rows.append({**row, "score": value, "low": low, "high": high})
    return rows


def score_chart(rows: Rows, *, width: int = 620) -> alt.VConcatChart:
    """Scores per category as points with their intervals, one colour a model. Each scorer has an axis
    of its own: units differ.
    """
    models = first_values(rows, "model")
    drawings = []
    for scorer in first_values(rows, "scorer"):
        of_scorer = [row for row in rows if row["scorer"] == scorer]
        drawings.append(one_scorer(of_scorer, models, scorer, width))
    return alt.vconcat(*drawings, spacing=10).resolve_scale(color="shared")


def one_scorer(rows: Rows, models: list[Any], scorer: str, width: int) -> alt.LayerChart:
    """The scores of one scorer."""
    base = alt.Chart(alt.Data(values=rows), width=width, height=alt.Step(16)).encode(
        alt.Y("category:N", title=None, sort=None),
        alt.YOffset("model:N", sort=models),
        alt.Color(
            "model:N", title=None, sort=models, legend=alt.Legend(orient="top", labelLimit=260)
        ),
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        alt.X("score:Q", title=scorer, scale=alt.Scale(zero=False, nice=True)),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("scorer:N"),
            alt.Tooltip("category:N"),
            alt.Tooltip("score:Q", format=".3g"),
            alt.Tooltip("low:Q", format=".3g"),
            alt.Tooltip("high:Q", format=".3g"),
        ],
    )
    bars = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=2)
        .encode(alt.X("low:Q", title=scorer), alt.X2("high:Q"))
    )
    return bars + points


def cost_rows(comparison: Comparison) -> Rows:
    """Cost and retention per model; shares and speed-ups are against the first model."""
    return [cost_row(model, comparison.models[0]) for model in comparison.models]


def cost_row(model: ModelResult, first: ModelResult) -> dict[str, Any]:
    share = model.parameters / first.parameters if first.parameters else None
    speedup = first.ms_per_step / model.ms_per_step if model.ms_per_step else None
    row = {
        "model": model.name,
        "parameters": model.parameters,
        "share": share,
        "bytes": model.bytes,
        "ms per step": model.ms_per_step,
        "speedup": speedup,
    }
    if model.guidance_gap is not None:
        row["guidance gap"] = model.guidance_gap
    for scorer, retention in model.retention.items():
        row[f"retention {scorer}"] = retention
    return row
