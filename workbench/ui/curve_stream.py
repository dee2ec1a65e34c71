"""What the browser asks for to draw a job's curves: new points, and how the panels are drawn. Small
requests beside Gradio's queue.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from .. import charts
from ..records import BadInput
from ..workspace import jobs
from ..workspace.store import Store

ENDED = ("done", "failed", "cancelled", "lost", "damaged")
MOST_LINES = 1500  # of metrics in one response; a longer history is thinned
MOST_SERIES = 1000  # in one drawing
MOST_SMOOTHING = 100  # points on either side
Series = tuple[tuple[str, str], ...]  # (panel, name)


def points_after(store: Store, question: Any) -> dict[str, Any]:
    """New points of a job's curves behind the browser's cursor. `question`: {job, after}."""
    try:
        job = jobs.show(store, str(question["job"]))
        after = jobs.Cursor.parse(question["after"])
    except (BadInput, KeyError, TypeError):
        return {"rows": [], "after": 0, "ended": True, "restart": False}
    lines, cursor = jobs.metrics(store, job.id, after, MOST_LINES)
    return {
        "rows": charts.curve_rows(lines),
        "after": cursor,
        "ended": job.state in ENDED,
        "restart": after == jobs.Cursor(),
    }


def drawing(question: Any) -> dict[str, Any]:
    """The chart of the lines that the browser has: {spec, colours}; colours are those of the first
    panel's lines. `question`: {series, log, x, smoothing}, series a list of (panel, name).
    """
    try:
        pairs = [(str(panel), str(name)) for panel, name in question["series"][:MOST_SERIES]]
        smoothing = min(MOST_SMOOTHING, max(0, int(question["smoothing"])))
        x = "time" if question["x"] == "time" else "step"
        return chart_of(tuple(pairs), question["log"] is True, x, smoothing)
    except (KeyError, TypeError, ValueError):
        return {"spec": None, "colours": {}}


@lru_cache(maxsize=32)
def chart_of(series: Series, log: bool, x: str, smoothing: int) -> dict[str, Any]:
    rows = [{"panel": panel, "name": name} for panel, name in series]
    chart = charts.curve_chart(rows, log=log, x=x, smoothing=smoothing, legend=False)
    lines = charts.curve_series(rows).get("loss", [])
    return {"spec": chart.to_dict(validate=False), "colours": charts.curve_colours(lines)}
