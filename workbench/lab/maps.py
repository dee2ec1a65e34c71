"""Sensitivity maps: the editable map, one block, every edit, differences, rank correlations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from altair.jupyter import JupyterChart

from .. import charts
from ..charts import view
from ..charts.view import Weighting
from ..records import BadInput, Card, Plan, SensitivityMap, Teacher
from .editor import Editor
from .inputs import AMap, ATeacher, chart_widget, look_at, record


def sensitivity(
    sensitivity: AMap,
    teacher: ATeacher,
    plan: Plan | None = None,
    *,
    edit: str = "drop",
    weighting: Weighting = "normalised",
    width: int = 760,
) -> Editor:
    """The map with a plan beneath it, to be edited by clicking. `width` in pixels."""
    return Editor(look_at(sensitivity, teacher, weighting), plan, edit, width)


def block(
    sensitivity: AMap,
    teacher: ATeacher,
    number: int,
    stack: str = "",
    *,
    weighting: Weighting = "normalised",
) -> widgets.HBox:
    """One block: its scores over the timesteps under every edit, and by part.

    Bands show one standard error. `stack`: the first one unless named.
    """
    look = look_at(sensitivity, teacher, weighting)
    path = look.teacher.stack(stack or look.teacher.stacks[0].path).path
    drawings = [view.block_chart(look, path, number), view.part_chart(look, path, number)]
    shown = [chart_widget(chart) for chart in drawings if chart is not None]
    if not shown:
        last = look.teacher.stack(path).depth - 1
        raise BadInput(
            f"the map has no score of {path} block {number}",
            f"blocks 0 to {last}",
            "choose another",
        )
    return widgets.HBox(shown, layout={"flex_flow": "row wrap"})


def edits(
    sensitivity: AMap,
    teacher: ATeacher,
    *,
    weighting: Weighting = "normalised",
    width: int = 760,
) -> JupyterChart:
    """Every edit of every block over all timesteps, on one colour scale."""
    chart = view.edits_chart(look_at(sensitivity, teacher, weighting), width=width)
    if chart is None:
        raise BadInput("a map of one edit", "several", "profile with --edits drop,merge,..")
    return chart_widget(chart)


def difference(
    first: AMap,
    second: AMap,
    teacher: ATeacher,
    edits: tuple[str, str] = ("drop", "drop"),
    *,
    weighting: Weighting = "normalised",
    width: int = 760,
) -> JupyterChart:
    """Where the first map under its edit scores higher than the second under its own.

    The same map twice compares two edits.
    """
    one = look_at(first, teacher, weighting)
    other = look_at(second, teacher, weighting)
    rows = view.difference_rows(one, other, edits)
    return chart_widget(charts.difference_chart(one.teacher, rows, edits, width=width))


def correlation(
    maps: SensitivityMap | Mapping[str, SensitivityMap],
    teacher: ATeacher,
    *,
    weighting: Weighting = "normalised",
) -> JupyterChart:
    """How similarly edits, metrics or maps rank the blocks: Spearman's rank correlation."""
    if isinstance(maps, SensitivityMap):
        maps = {"": maps}
    looks = {name: look_at(each, teacher, weighting) for name, each in maps.items()}
    chart = view.correlation_chart(looks)
    if chart is None:
        raise BadInput("one ranking of the blocks", "two edits or two maps", "give another map")
    return chart_widget(chart)


def stability(sensitivity: AMap) -> str:
    """Whether other prompts would rank the blocks in the same order, in words."""
    text = record(SensitivityMap, sensitivity).trust
    return text or "The record does not say how stable the ranking of the blocks is."


def recovery(
    source: SensitivityMap | Mapping[str, Any] | Path | str,
    teacher: ATeacher,
    sensitivity: AMap | None = None,
    *,
    stage: str | None = None,
    width: int = 760,
) -> JupyterChart:
    """What training recovers: the error of each span before and after, above the blocks' scores in
    the map `sensitivity`.

    source: a distilled student's folder, a distillation's result (its last stage unless `stage`
    names one), or a map of metric recovery.
    """
    below = None
    if sensitivity is not None:
        below = record(SensitivityMap, sensitivity)
    rows = charts.recovery_rows(recovery_of(source), record(Teacher, teacher), below, stage=stage)
    if not rows["spans"]:
        raise BadInput(
            "no span was measured before and after training",
            "a distilled student, or a map of metric recovery",
            "name one",
        )
    return chart_widget(charts.recovery_chart(rows, width=width))


def recovery_of(source: SensitivityMap | Mapping[str, Any] | Path | str) -> Any:
    """The measurements of spans in a result, a student's card or a map's file."""
    if isinstance(source, SensitivityMap):
        return source
    if isinstance(source, Mapping):
        return source.get("recoverability", [])
    card = Path(source) / "card.json"
    if card.is_file():
        return Card.load(card).metrics.get("recoverability", [])
    return SensitivityMap.load(source)
