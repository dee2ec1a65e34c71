"""What a family's student classes are made of: its row in the words of the modeling file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from torch import nn

from ..families import FAMILIES, Family, StackRow
from ..families import Rows as FamilyRows
from ..plugins.registry import imported
from .removed_parts import Part, Rows

SINGLE = " single"  # behind a stack's name: the parts of its blocks that were made single


def stock_class(family: Family) -> Any:
    """The transformer class of a family, in diffusers or where the family says."""
    return getattr(import_module(family.library), family.transformer)


def block_class(family: str) -> type[nn.Module] | None:
    """The single-stream block of a family, made from a dual one: `block_class(family)(dual)`."""
    target = FAMILIES[family].single_block
    if not target:
        return None
    block: type[nn.Module] = imported(target)
    return block


def part_table(row: StackRow) -> dict[str, Part]:
    """The parts of a row of the families table, in the words of the modeling file."""
    return {
        name: Part(part.modules, in_file(part.rows), in_file(part.gates), part.open)
        for name, part in row.parts.items()
    }


def in_file(rows: Sequence[FamilyRows]) -> tuple[Rows, ...]:
    return tuple(Rows(r.tensor, r.chunks, r.of, r.dim) for r in rows)


def part_tables(stacks: Sequence[StackRow]) -> dict[str, dict[str, Part]]:
    """Stack -> part -> what it is; where the stack is dual, its single blocks' parts too."""
    tables = {}
    for row in stacks:
        tables[row.path] = part_table(row)
        if row.kind == "dual":
            tables[row.path + SINGLE] = part_table(row.single)
    return tables


def modulation_linears(stacks: Sequence[StackRow]) -> dict[str, tuple[str, ...]]:
    """Stack -> names of its blocks' modulation linears."""
    return {row.path: row.modulation for row in stacks}


def returned_streams(stacks: Sequence[StackRow]) -> dict[str, tuple[str, ...]]:
    """Stack -> names of the streams its blocks return, in order."""
    return {row.path: row.returns for row in stacks}
