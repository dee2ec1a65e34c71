"""All students of several comparisons: size or time against score, and which of them no other beats
in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from ..records import BadInput, Comparison, ModelResult
from .axis import COLOURS, Rows

TIPS = ("model:N", "parameters:Q", "bytes:Q", "time:Q", "score:Q", "low:Q", "high:Q")
COSTS = {  # column -> title; all of them: lower = better
    "parameters": "parameters",
    "bytes": "bytes on disk",
    "time": "time per step, share of the first model's",
}


def student_rows(*comparisons: Comparison, scorer: str = "") -> Rows:
    """One row per model: cost, score with its interval, and whether it is on the Pareto front.

    scorer: one that all comparisons have; else the first of them that measures quality. Comparisons
    must be of the same prompts and seeds, else scores do not compare. A model that is in several
    comparisons, such as the teacher, has one row. front: a set of costs, as text, in which no other
    model costs less (or the same) and scores better. Raises BadInput for comparisons of different
    prompts, and where there is no such scorer.
    """
    check_same(comparisons)
    label = scorer or usual_scorer(comparisons)
    rows: Rows = []
    known: set[tuple[str, int]] = set()
    for comparison in comparisons:
        first = comparison.models[0]
        for model in comparison.models:
            key = (model.source, model.parameters)
            if label not in model.scores or key in known:
                continue
            known.add(key)
            rows.append(student_row(model, first, label))
    if not rows:
        labels = ", ".join(common_scorers(comparisons)) or "comparisons with a common scorer"
        raise BadInput(
            f"scorer {label or 'none'} of {len(comparisons)} comparisons", labels, "choose"
        )
    for row in rows:
        on = [cost for cost in COSTS if is_on_front(row, rows, cost)]
        row["front"] = " ".join(on)
    return rows


def student_row(model: ModelResult, first: ModelResult, label: str) -> dict[str, Any]:
    score = model.scores[label]
    return {
        "model": model.name,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "time": model.ms_per_step / first.ms_per_step if first.ms_per_step else None,
        "scorer": label,
        "score": score.overall,
        "low": score.low,
        "high": score.high,
        "higher": score.higher_is_better,
        "first": model is first,
    }


def check_same(comparisons: Sequence[Comparison]) -> None:
    """Raises BadInput for none, and for comparisons of different prompts or seeds."""
    if not comparisons:
        raise BadInput("no comparison", "at least one", "name one")
    first = comparisons[0]
    for other in comparisons[1:]:
        if (other.prompts, other.seeds) != (first.prompts, first.seeds):
            raise BadInput(
                f"comparisons of {first.suite} and {other.suite} with different prompts or seeds",
                "the same prompts and seeds, as scores only compare on them",
                "look at them apart",
            )


def common_scorers(comparisons: Iterable[Comparison]) -> list[str]:
    """Scorers that every model of every comparison has, in the first one's order."""
    models = [model for comparison in comparisons for model in comparison.models]
    return [label for label in models[0].scores if all(label in m.scores for m in models)]


def usual_scorer(comparisons: Sequence[Comparison]) -> str:
    """The first common scorer that measures quality, else the first one; "" where there is none.

    One that measures quality says what share of the first model's score a student keeps.
    """
    labels = common_scorers(comparisons)
    for label in labels:
        if any(model.retention.get(label) is not None for model in comparisons[0].models):
            return label
    return labels[0] if labels else ""


def is_on_front(row: Mapping[str, Any], rows: Rows, cost: str) -> bool:
    """Whether no other row is costs at most as much and scores at least as well, and is better in one."""
    if row[cost] is None:
        return False
    return not any(beats(other, row, cost) for other in rows)


def beats(other: Mapping[str, Any], row: Mapping[str, Any], cost: str) -> bool:
    if other[cost] is None:
        return False
    gain = other["score"] - row["score"] if row["higher"] else row["score"] - other["score"]
    saving = row[cost] - other[cost]
    return bool(gain >= 0 and saving >= 0 and (gain > 0 or saving > 0))


def student_chart(rows: Rows, *, cost: str = "parameters", width: int = 520) -> alt.LayerChart:
    """Cost along x, score along y with its interval; a line joins the Pareto front.

    cost: parameters, bytes or time.
    """
    if cost not in COSTS:
        raise BadInput(f"cost {cost}", ", ".join(COSTS), "choose one of them")
    points = [{**row, "is on front": cost in row["front"].split()} for row in rows]
    base = alt.Chart(alt.Data(values=points), width=width, height=280).encode(
        alt.X(f"{cost}:Q", title=COSTS[cost], scale=alt.Scale(zero=False), axis=axis_of(cost)),
        alt.Y("score:Q", title=rows[0]["scorer"], scale=alt.Scale(zero=False)),
    )
    intervals = (
        base.transform_filter("isValid(datum.low)")
        .mark_rule(strokeWidth=1.5, opacity=0.5)
        .encode(alt.Y("low:Q", title=rows[0]["scorer"]), alt.Y2("high:Q"))
    )
    front = base.transform_filter("datum['is on front']").mark_line(
        strokeDash=[4, 3], color=COLOURS["merge"], interpolate="linear"
    )
    words = "datum.value ? 'no other costs less and scores better' : 'another does'"
    marks = base.mark_point(filled=True, size=80, opacity=1).encode(
        alt.Color(
            "is on front:N",
            title="Pareto front",
            scale=alt.Scale(domain=[True, False], range=[COLOURS["merge"], COLOURS["keep"]]),
            legend=alt.Legend(orient="top", labelExpr=words, labelLimit=240),
        ),
        alt.Shape("first:N", title="first model", legend=None),
        tooltip=[alt.Tooltip(field) for field in TIPS],
    )
    names = base.mark_text(align="left", dx=8, dy=-8).encode(alt.Text("model:N"))
    return intervals + front + marks + names


def axis_of(cost: str) -> alt.Axis:
    return alt.Axis(format=".2f" if cost == "time" else "~s", grid=False)
