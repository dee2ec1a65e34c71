"""Results of OneIG's scripts: tables of models, or of prompts, as their run_*.sh leave them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ...records import BadInput, read_text
from ...records.text_rows import TextRow, table_rows
from .base import Scored
from .prompt_files import numbered
from .results import WHAT, expanded
from .values import Result, Total, Values

WHOLES = ("text score", "total average")  # columns of what a script makes of the others


def oneig(files: Sequence[Path], run: Scored) -> dict[str, Result]:
    """*_score_*.csv: a row per model, no interval. *_prompt_score_*.csv, which the scripts write
    where their last lines are uncommented: a row per prompt, with intervals.
    """
    results: dict[str, Result] = {}
    for path in expanded(files, "*_score_*.csv"):
        _, rows = table_rows(str(path), read_text(path, WHAT))
        label = f"OneIG {path.name.split('_')[0]}"
        if path.name.startswith("text_prompt_score_"):
            continue  # three figures a prompt, of which the composite cannot be made
        if "_prompt_score_" in path.name:
            results[label] = per_prompt(path, rows, run)
        elif label not in results:
            results[label] = total(path, rows, run)
    return results


def total(path: Path, rows: Sequence[TextRow], run: Scored) -> Total:
    """The model's row; the column of the whole where there is one, else the mean of all."""
    for row in rows:
        if row.values.get("") != run.name:
            continue
        figures = {name: number(value) for name, value in row.values.items() if name}
        known = {name: value for name, value in figures.items() if value is not None}
        if not known:
            break
        whole = next((name for name in WHOLES if name in known), "")
        overall = known[whole] if whole else sum(known.values()) / len(known)
        parts = {name: value for name, value in known.items() if len(known) > 1 and name != whole}
        return Total(overall, parts, unit="as OneIG prints it")
    raise BadInput(
        f"results {path.name}: no row {run.name}", "a row for the model", "check the file"
    )


def per_prompt(path: Path, rows: Sequence[TextRow], run: Scored) -> Values:
    """The model's column; prompts are CLASS_ID, or the ID alone in tables of one class."""
    numbers: dict[str, int] = {}
    only = path.name.split("_")[0]
    for place, item in enumerate(run.items):
        numbers[f"{item['category']}_{item['id']}"] = place
        if item["category"] == only:
            numbers[str(item["id"])] = place
    values, items = [], []
    every = numbered(run.items, 1)
    for row in rows:
        value = number(row.values.get(run.name))
        place_of_row = numbers.get(str(row.values.get("")))
        if value is not None and place_of_row is not None:
            values.append(value)
            items.append(every[place_of_row])
    if not values:
        raise BadInput(
            f"results {path.name}: no number of {run.name}",
            "a column of that name, and rows named by the prompts",
            "check the file",
        )
    return Values(values, items, unit="mean of the grid's pictures", plain=True, per_picture=False)


def number(value: object) -> float | None:
    try:
        figure = float(str(value))
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None
