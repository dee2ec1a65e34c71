"""Published tables as sensitivity maps: HierarchicalPrune's contribution analysis (arXiv
2508.04663).

Its JSON maps "<block><tab><component>" (with the five characters <tab>) to the HPSv2 of pictures
made after that component of the block is passed through; a bare "<block>" is a whole block. No
model is needed to read it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .. import plans
from ..records import BadInput, Row, SensitivityMap, StackInfo, Teacher, read_text

KEY = re.compile(r"(\d+)(?:<tab>|\t)?(\w*)")
# Its names of SD3.5's components, in our parts. Its `attn` covers both streams' attention, ours the
# image's output.
COMPONENTS = {
    "": "drop",
    "attn": "drop:attn",
    "ff": "drop:mlp",
    "ff_context": "drop:text.mlp",
    "w_norm1": "drop:modulation",
    "w_norm1_context": "drop:text.modulation",
}
SHAPE = (
    'an object of numbers under keys like "31<tab>ff" (HierarchicalPrune\'s precomputed metrics)'
)


def import_table(
    path: Path | str, teacher: Teacher, baseline: float, metric: str = "hpsv2"
) -> SensitivityMap:
    """score = baseline - the value after removal: higher = keep. Rows in order of block; timestep
    null.

    Rows of a pinned block, and of parts that a block has not, are kept and flagged. Raises BadInput
    for a file of another shape and for a block the teacher has not.
    """
    path = Path(path)
    stack = teacher.stacks[0]
    rows = []
    for key, value in _table(path).items():
        match = KEY.fullmatch(key)
        if match is None or match[2] not in COMPONENTS or not _number(value):
            raise BadInput(
                f"{path}: entry {key[:40]!r}: {str(value)[:40]}",
                f"{SHAPE} with a component of {', '.join(filter(None, COMPONENTS))}",
                "give that file",
            )
        block, edit = int(match[1]), COMPONENTS[match[2]]
        if block >= stack.depth:
            raise BadInput(
                f"{path} has a score of block {block}",
                f"blocks 0 to {stack.depth - 1} of {teacher.name}",
                "give the table of this model",
            )
        rows.append(
            Row(
                stack=stack.path,
                block=block,
                edit=edit,
                score=baseline - value,
                flag=_flag(teacher, stack, block, edit),
            )
        )
    rows.sort(key=lambda row: (row.edit != "drop", row.edit, row.block))
    measured = {
        "removal": "passthrough",
        "source": path.name,
        "paper": "arXiv 2508.04663",
        "baseline": baseline,
    }
    return SensitivityMap(
        teacher=teacher.name,
        fingerprint=teacher.fingerprint,
        family=teacher.family,
        metric=metric,
        unit="loss of HPSv2 points when the part is removed",
        rows=rows,
        measured=measured,
    )


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path, "table"))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"{path} is not JSON (line {error.lineno}: {error.msg})", SHAPE, "give that file"
        ) from None
    if not isinstance(found, dict) or not found:
        raise BadInput(
            f"{path} holds {'nothing' if not found else 'a ' + type(found).__name__}",
            SHAPE,
            "give that file",
        )
    return found


def _number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and value == value
        and abs(value) != float("inf")
    )


def _flag(teacher: Teacher, stack: StackInfo, block: int, edit: str) -> str | None:
    """What a reader must know of a row: the part is not there, or no plan can take it."""
    row = plans.family_of(teacher).stack(stack.path)
    part = edit.partition(":")[2]
    if part and part not in row.fitted(stack.tensors(block)).parts:
        return f"block {block} has no {part}"
    if block in row.pinned_in(stack.depth):
        return f"block {block} is built differently from the others (no text output) and pinned: {edit} is not the same edit here"
    return None
