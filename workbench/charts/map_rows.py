"""The data of the sensitivity map: cells, bars per block, weights of timesteps, and scales."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from .. import plans
from ..records import Row, SensitivityMap, Teacher
from .axis import Rows, first_values, offsets, two_scales
from .shapes import Shape, over_timesteps, shape_of, shorter, time_label

# edit -> timestep -> how it counts
Weights = Mapping[str, Mapping[float | None, plans.TimestepWeight]]
ALL_EDITS = "*"  # the scale that all edits share


def sensitivity_rows(measured: SensitivityMap, teacher: Teacher, edit: str | None = None) -> Rows:
    """One row per cell, of one edit or of all: place `at`, `edit`, `line` (see shapes.shape_of),
    score, standard error, flag.
    """
    starts = offsets(teacher)
    shape = shape_of(measured)
    cells = []
    for row in over_timesteps(measured):
        if row.stack in starts and edit in (None, row.edit):
            cells.append(cell(row, starts[row.stack] + row.block, shape))
    return cells


def cell(row: Row, at: int, shape: Shape) -> dict[str, Any]:
    values: dict[str, Any] = {
        "at": at,
        "edit": row.edit,
        "line": line_of(row, shape),
        "score": shorter(row.score),
    }
    if row.stderr is not None:
        values["stderr"] = shorter(row.stderr)
    if shape == "spans":
        values["last"] = row.last
    if row.flag:
        values["flag"] = row.flag
    return values


def line_of(row: Row, shape: Shape) -> str:
    """The line of the map in which a row stands."""
    if shape == "timesteps":
        return time_label(row.timestep)
    if shape == "edits":
        return row.edit
    return str(row.block if row.last is None else row.last)


def line_order(cells: Rows) -> list[str]:
    """Timesteps from noise to picture, last blocks from the first, edits as they come."""
    lines = first_values(cells, "line")
    if edits_are_lines(cells):
        return lines
    if cover_spans(cells):
        return sorted(lines, key=int)
    return sorted(lines, key=lambda line: 1.0 if line == "all" else -float(line))


def edits_are_lines(cells: Rows) -> bool:
    return any(row["line"] == row["edit"] for row in cells)


def cover_spans(cells: Rows) -> bool:
    return any("last" in row for row in cells)


def shape_of_cells(cells: Rows) -> Shape:
    if edits_are_lines(cells):
        return "edits"
    return "spans" if cover_spans(cells) else "timesteps"


def flagged(cells: Rows) -> bool:
    return any(row.get("flag") for row in cells)


# --- bars -----------------------------------------------------------------------------------------


def bar_rows(measured: SensitivityMap, teacher: Teacher, weights: Weights) -> Rows:
    """One row per block and edit: its score over the timesteps as `plans.timestep_weights` counts
    them, with an error bar.

    `low` and `high`: a standard error each way, as if the timesteps erred together (they share the
    prompts): an upper bound.
    """
    starts = offsets(teacher)
    scores: dict[tuple[str, int], float] = defaultdict(float)
    errors: dict[tuple[str, int], float] = defaultdict(float)
    norms: dict[tuple[str, int], float] = defaultdict(float)
    for row in measured.rows:
        if row.last is not None or row.stack not in starts or row.edit not in weights:
            continue
        key = (row.edit, starts[row.stack] + row.block)
        factor, share = weights[row.edit][row.timestep]
        scores[key] += factor * row.score
        errors[key] += factor * (row.stderr or 0.0)
        norms[key] += share
    return [bar(key, scores[key], errors[key], norm) for key, norm in norms.items()]


def bar(key: tuple[str, int], score: float, error: float, norm: float) -> dict[str, Any]:
    """One bar from weighted sums; norm 0: no timestep counts."""
    edit, at = key
    if norm == 0:
        return {"at": at, "edit": edit, "score": 0.0}
    score /= norm
    error /= norm
    values: dict[str, Any] = {"at": at, "edit": edit, "score": shorter(score)}
    if error:
        values["low"] = shorter(score - error)
        values["high"] = shorter(score + error)
    return values


def bar_scales(bars: Rows) -> dict[str, Any]:
    """Edit -> how its bars lie on the axis (`axis.two_scales`)."""
    return scales_by_edit(bars)


def scales_by_edit(rows: Rows) -> dict[str, Any]:
    """Edit -> `two_scales` of its scores and of the ends of their error bars."""
    scales = {}
    for edit in first_values(rows, "edit"):
        of_edit = [row for row in rows if row["edit"] == edit]
        ends: list[float] = []
        for row in of_edit:
            if "low" in row:
                ends += [row["low"], row["high"]]
        scales[edit] = two_scales([row["score"] for row in of_edit], ends)
    return scales


def cell_scales(cells: Rows) -> dict[str, Any]:
    """Edit -> `two_scales` of its cells; and one for all edits together."""
    together = two_scales([row["score"] for row in cells])
    return {**scales_by_edit(cells), ALL_EDITS: together}


def weight_rows(weights: Weights) -> Rows:
    """How much each timestep counts (`plans.timestep_weights`): its factor, as a share of the
    largest of its edit.
    """
    rows = []
    for edit, times in weights.items():
        largest = max((weight.factor for weight in times.values()), default=0.0) or 1.0
        for time, weight in times.items():
            share = weight.factor / largest
            rows.append({"edit": edit, "line": time_label(time), "weight": share})
    return rows
