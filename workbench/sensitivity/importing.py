"""Published tables as sensitivity maps: HierarchicalPrune's contribution analysis (arXiv
2508.04663).

Its JSON maps "<block><tab><component>" (with the five characters <tab>) to the HPSv2 of pictures
made after that component of the block is passed through; a bare "<block>" is a whole block. No
model is needed to read it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from .. import plans
from ..records import BadInput, Row, SensitivityMap, StackInfo, Teacher, jsonfile, read_text

KEY = re.compile(r"(\d+)(?:<tab>|\t)?(\w*)")
# Its names of SD3.5's components, as our edits. Its `attn` covers the attention of both streams,
# ours the image stream's output.
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

    Rows of a pinned block, and of parts that a block does not have, are kept and flagged. Raises
    BadInput for a file of another shape and for a block that the teacher does not have.
    """
    path = Path(path)
    rows = []
    for key, value in read_table(path).items():
        rows.append(row_of(path, key, value, teacher, baseline))
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


def read_table(path: Path) -> dict[str, Any]:
    """The file's object. Raises BadInput for anything else."""
    try:
        table = jsonfile.parse(read_text(path, "table", jsonfile.MOST_BYTES))
    except jsonfile.JSONError as error:
        raise BadInput(f"{path} is not JSON ({error})", SHAPE, "give that file") from None
    if not isinstance(table, dict) or not table:
        content = f"a {type(table).__name__}" if table else "nothing"
        raise BadInput(f"{path} holds {content}", SHAPE, "give that file")
    return table


def row_of(path: Path, key: str, value: Any, teacher: Teacher, baseline: float) -> Row:
    """One entry of the table as a row."""
    stack = teacher.stacks[0]
    match = KEY.fullmatch(key)
    if match is None or match[2] not in COMPONENTS or not is_number(value):
        raise BadInput(
            f"{path}: entry {key[:40]!r}: {str(value)[:40]}",
            f"{SHAPE} with a component of {', '.join(filter(None, COMPONENTS))}",
            "give that file",
        )
    block = int(match[1])
    edit = COMPONENTS[match[2]]
    if block >= stack.depth:
        raise BadInput(
            f"{path} has a score of block {block}",
            f"blocks 0 to {stack.depth - 1} of {teacher.name}",
            "give the table of this model",
        )
    flag = flag_of(teacher, stack, block, edit)
    return Row(stack=stack.path, block=block, edit=edit, score=baseline - value, flag=flag)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def flag_of(teacher: Teacher, stack: StackInfo, block: int, edit: str) -> str | None:
    """A remark on a row, where the part does not exist or no plan can remove it."""
    row = plans.family_of(teacher).stack(stack.path)
    part = edit.partition(":")[2]
    if part and part not in row.fitted(stack.tensors(block)).parts:
        return f"block {block} has no {part}"
    if block in row.pinned_in(stack.depth):
        return (
            f"block {block} is built differently from the others (no text output) and pinned: "
            f"{edit} is not the same edit here"
        )
    return None
