"""The charts by name: what each one draws, the function that makes its rows, and the one that draws
them. Importing this imports no chart.

A chart from outside is one row:

    workbench.register("chart", "mine", Chart("My chart.", rows=my_rows, chart=my_chart))
    charts.draw("mine", record)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..plugins import Registry, registry
from ..plugins.registry import imported

Function = Callable[..., Any]


@dataclass(frozen=True)
class Chart:
    """A chart: data first, figure second.

    rows: from records to plain rows (dicts of JSON values; the map: a view.Look, which keeps its
    rows). chart: from those rows to an Altair chart. Both may be named as "module:function",
    imported on first use.
    """

    about: str
    rows: Function | str
    chart: Function | str

    def draw(self, *records: Any, **options: Any) -> Any:
        """The Altair chart of these records; `options` are of the drawing (width, log ..)."""
        return resolved(self.chart)(resolved(self.rows)(*records), **options)


def resolved(target: Function | str) -> Function:
    if isinstance(target, str):
        function: Function = imported(target)
        return function
    return target


def draw(name: str, *records: Any, **options: Any) -> Any:
    """A registered chart of these records. Raises BadInput for an unknown name."""
    return CHARTS[name].draw(*records, **options)


def _row(about: str, module: str, rows: str, chart: str) -> Chart:
    home = f"workbench.charts.{module}"
    return Chart(about, f"{home}:{rows}", f"{home}:{chart}")


ROWS: Mapping[str, Chart] = {
    "map": _row(
        "Scores of every block at every timestep, with bars per block.",
        "view",
        "look_at",
        "map_chart",
    ),
    "profile": _row(
        "One block's scores over the timesteps, under every edit.",
        "one_block",
        "profile_rows",
        "profile_chart",
    ),
    "parts": _row(
        "What dropping each part of a block scores.", "one_block", "part_rows", "part_chart"
    ),
    "correlation": _row(
        "Rank correlation of several orders of the blocks.",
        "map_difference",
        "correlation_rows",
        "correlation_chart",
    ),
    "plan": _row(
        "A plan: teacher blocks above, student blocks below.",
        "plan",
        "plan_picture_rows",
        "plan_picture_chart",
    ),
    "recovery": _row(
        "The error of each span before and after training.",
        "recovery",
        "recovery_rows",
        "recovery_chart",
    ),
    "curve": _row(
        "Losses, learning rate and speed over a run.", "curve", "curve_rows", "curve_chart"
    ),
    "scores": _row(
        "A comparison's scores per category, with intervals.",
        "results",
        "score_rows",
        "score_chart",
    ),
    "students": _row(
        "All students of comparisons: cost against score, with the Pareto front.",
        "students",
        "student_rows",
        "student_chart",
    ),
}
CHARTS: Registry[Chart] = registry("chart")
