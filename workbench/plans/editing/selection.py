"""What a person selected, and the note that a person went over a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...records import BadInput, Plan, Teacher

Selection = Mapping[str, Iterable[int]]  # stack path -> teacher blocks


def checked_selection(selection: Selection, teacher: Teacher) -> dict[str, set[int]]:
    """Stack -> selected teacher blocks. Raises BadInput for a block that does not exist."""
    out: dict[str, set[int]] = {}
    for path, selected in selection.items():
        depth = teacher.stack(path).depth
        out[path] = set(selected)
        for block in sorted(out[path]):
            if not 0 <= block < depth:
                raise BadInput(
                    f"{path}: block {block} does not exist",
                    f"blocks 0 to {depth - 1}",
                    "select others",
                )
    return out


def runs(blocks: Iterable[int]) -> list[list[int]]:
    """Consecutive numbers, grouped."""
    out: list[list[int]] = []
    for block in sorted(blocks):
        if out and out[-1][-1] == block - 1:
            out[-1].append(block)
        else:
            out.append([block])
    return out


def run_names(blocks: Iterable[int]) -> list[str]:
    """[1, 2, 3, 7] -> 1-3, 7."""
    names = []
    for run in runs(blocks):
        name = str(run[0])
        if len(run) > 1:
            name = f"{run[0]}-{run[-1]}"
        names.append(name)
    return names


def edited_origin(plan: Plan) -> dict[str, Any]:
    """The plan's origin with a note that a person went over it."""
    if plan.origin.get("rule") == "by hand":
        return dict(plan.origin)
    if plan.origin.get("rule") in (None, "identity"):
        return {"rule": "by hand"}
    return {**plan.origin, "edited": "by hand"}
