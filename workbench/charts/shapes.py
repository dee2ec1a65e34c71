"""The shape of a map (by timestep, edit or span), and the titles that all charts of maps share."""

from __future__ import annotations

from typing import Literal

from ..records import Row, SensitivityMap

Shape = Literal["timesteps", "edits", "spans"]
TITLES: dict[Shape, str] = {
    "timesteps": "timestep (1000 = noise)",
    "edits": "edit",
    "spans": "last block of the span",
}


def shape_of(measured: SensitivityMap) -> Shape:
    """What a line of the map is: a timestep; the edit, where nothing was measured per timestep
    (imported tables, finished pictures); or a span's last block (CKA, recovery)."""
    if any(row.last is not None for row in measured.rows):
        return "spans"
    if any(row.timestep is not None for row in measured.rows):
        return "timesteps"
    return "edits"


def time_label(timestep: float | None) -> str:
    return "all" if timestep is None else f"{timestep:.0f}"


def over_timesteps(measured: SensitivityMap) -> list[Row]:
    """The rows; where they are of spans, one row per span and edit: plain means over its timesteps,
    of errors too (an upper bound).
    """
    if shape_of(measured) != "spans":
        return measured.rows
    of_span: dict[tuple[str, int, int | None, str], list[Row]] = {}
    for row in measured.rows:
        of_span.setdefault((row.stack, row.block, row.last, row.edit), []).append(row)
    return [mean_row(rows) for rows in of_span.values()]


def mean_row(rows: list[Row]) -> Row:
    """The plain mean of rows; without an error where one has none."""
    score = sum(row.score for row in rows) / len(rows)
    errors = [row.stderr for row in rows if row.stderr is not None]
    stderr = sum(errors) / len(errors) if len(errors) == len(rows) else None
    return rows[0].model_copy(update={"timestep": None, "score": score, "stderr": stderr})


def shorter(value: float) -> float:
    """Six digits are enough to look at; 18,000 cells travel to the browser."""
    return float(f"{value:.6g}")


def reading(score: float, stderr: float | None) -> str:
    """A score with its standard error, for people."""
    if stderr is None:
        return f"{score:.3g}"
    return f"{score:.3g} ± {stderr:.1g}"
