"""The families table: what a diffusers transformer class is made of, as data (DESIGN section 3). No
torch here.

The words are in rows.py, the rows in table.py. A new family is one row (docs/add-a-family.md).
"""

from __future__ import annotations

from ..records import BadInput
from .rows import Family, Layout, Part, Rows, StackRow, inside
from .table import FAMILIES, REFUSED

HYBRID = "Hybrid"  # a student with custom blocks is of class Hybrid<stock class>

__all__ = [
    "FAMILIES",
    "HYBRID",
    "REFUSED",
    "Family",
    "Layout",
    "Part",
    "Rows",
    "StackRow",
    "by_class",
    "inside",
]


def by_class(class_name: str) -> Family:
    """The family of a diffusers transformer class, or of our hybrid students of that class.

    Raises BadInput for a class that cannot be handled, with the reason, and for one the table
    lacks, with how to add it.
    """
    for family in FAMILIES.values():
        if family.transformer == class_name.removeprefix(HYBRID):
            return family
    known = ", ".join(sorted(f.transformer for f in FAMILIES.values()))
    if class_name in REFUSED:
        raise BadInput(
            f"transformer class {class_name} ({REFUSED[class_name]})",
            f"one of {known}",
            "use another teacher",
        )
    raise BadInput(
        f"transformer class {class_name} is not in the families table",
        f"one of {known}",
        "add a row to workbench/families/table.py (docs/add-a-family.md)",
    )
