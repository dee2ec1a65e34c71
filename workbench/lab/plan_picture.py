"""A plan as a diagram."""

from __future__ import annotations

from pathlib import Path

from altair.jupyter import JupyterChart

from .. import charts, plans
from ..records import Plan, Teacher
from .inputs import ATeacher, chart_widget, record


def picture(plan: Plan | Path | str, teacher: ATeacher, *, width: int = 760) -> JupyterChart:
    """Teacher blocks above, student blocks below, spans between. `width` in pixels."""
    of = record(Teacher, teacher)
    rows = charts.plan_picture_rows(plans.check(record(Plan, plan), of), of)
    return chart_widget(charts.plan_picture_chart(rows, width=width))
