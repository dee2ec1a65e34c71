"""Arguments of the notebook functions (records or their files), and charts as widgets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import altair as alt
from altair.jupyter import JupyterChart

from .. import plans
from ..charts.view import Look, Weighting
from ..records import BadInput, Record, SensitivityMap, Teacher

# before the first chart: Vega comes from vl-convert, nothing from a CDN
JupyterChart.enable_offline()

AMap = SensitivityMap | Path | str
ATeacher = Teacher | Path | str
R = TypeVar("R", bound=Record)


def record(kind: type[R], value: R | Path | str) -> R:
    """A record, or the record of a file."""
    if isinstance(value, kind):
        return value
    return kind.load(value)  # type: ignore[arg-type]


def look_at(sensitivity: AMap, teacher: ATeacher, weighting: Weighting) -> Look:
    """A teacher and its map under a timestep weighting: a name, or timestep -> weight."""
    if not isinstance(weighting, Mapping) and weighting not in plans.WEIGHTINGS:
        known = ", ".join(plans.WEIGHTINGS)
        raise BadInput(
            f"timestep weighting {weighting!r}",
            f"one of {known}, or timestep -> weight",
            "choose one",
        )
    return Look.of(record(Teacher, teacher), record(SensitivityMap, sensitivity), weighting)


def chart_widget(chart: Any) -> JupyterChart:
    """A chart whose selections reach Python once, at the end of a drag."""
    return alt.JupyterChart(
        chart, debounce_wait=200, max_wait=False, embed_options={"actions": False}
    )
