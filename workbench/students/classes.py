"""The student classes of this process: one per family, the same that travels with a student."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..families import FAMILIES, HYBRID
from .hybrid_class import make_hybrid
from .modeling_file import class_docstring, module_name, source
from .tables import (
    block_class,
    modulation_linears,
    part_tables,
    returned_streams,
    stock_class,
)


@cache
def student_class(family: str) -> Any:
    """The class of a family's hybrid students, a subclass of the stock one. What it saves loads
    elsewhere.
    """
    row = FAMILIES[family]
    content = {"__module__": __name__, "__doc__": class_docstring(row)}
    return make_hybrid(
        type(HYBRID + row.transformer, (stock_class(row),), content),
        module_name(family),
        lambda: source(family),
        part_tables(row.stacks),
        returned_streams(row.stacks),
        modulation_linears(row.stacks),
        row.dual_stack,
        block_class(family),
    )


def __getattr__(name: str) -> Any:
    """The classes by their names, for pickle."""
    for family in FAMILIES.values():
        if name == HYBRID + family.transformer:
            return student_class(family.name)
    raise AttributeError(name)
