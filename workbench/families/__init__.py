"""The families table: what a transformer class is made of, as data. No torch here.

`rows` and `layouts` have the types, `table` the rows, `lookup` finds one. A new family is one row
(docs/add-a-family.md), also from outside: workbench.register("family", name, Family(..)).
"""

from __future__ import annotations

from .conditioning import Conditioning
from .inputs import Inputs
from .layouts import Layout, Part, Rows, inside
from .lookup import FAMILIES, HYBRID, by_class, find_family, is_hybrid
from .row_types import Family, FewSteps, StackRow
from .table import REFUSED

__all__ = [
    "FAMILIES",
    "HYBRID",
    "REFUSED",
    "Conditioning",
    "Family",
    "FewSteps",
    "Inputs",
    "Layout",
    "Part",
    "Rows",
    "StackRow",
    "by_class",
    "find_family",
    "inside",
    "is_hybrid",
]
