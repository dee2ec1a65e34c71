"""The student classes of this process, made from the families table: one per family, the same that
travels with a student.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

import diffusers
from torch import nn

from .. import families
from ..families import FAMILIES, StackRow
from .hybrid_class import hybrid
from .removed_parts import Part, Rows

PREFIX = families.HYBRID
BLOCKS = {
    "qwenimage": "QwenImageSingleStreamBlock",
    "flux": "FluxSingleStreamBlock",
    "sd3": "SD3SingleStreamBlock",
    # each in the module of its family
    "hunyuanimage": "HunyuanImageSingleStreamBlock",
    "auraflow": "AuraFlowSingleStreamBlock",
}
SINGLE = " single"  # behind a stack's name: the parts of its blocks that were made single


def dual_stack(family: str) -> str:
    """The stack whose blocks can become single; empty where there is none."""
    return (
        next((row.path for row in FAMILIES[family].stacks if row.kind == "dual"), "")
        if family in BLOCKS
        else ""
    )


def can_single(family: str, path: str) -> bool:
    """Whether the dual-stream blocks of this stack can become single-stream."""
    return path != "" and path == dual_stack(family)


def block_class(family: str) -> type[nn.Module] | None:
    """The single-stream block of a family, made from a dual one: `block_class(family)(dual)`."""
    return (
        getattr(import_module(f"{__package__}.single_stream.{family}"), BLOCKS[family])
        if family in BLOCKS
        else None
    )


def table(row: StackRow) -> dict[str, Part]:
    """The parts of a row of the families table, in the words of the modeling file."""

    def words(rows: Sequence[families.Rows]) -> tuple[Rows, ...]:
        return tuple(Rows(r.tensor, r.chunks, r.of, r.dim) for r in rows)

    return {
        name: Part(part.modules, words(part.rows), words(part.gates), part.open)
        for name, part in row.parts.items()
    }


def part_tables(stacks: Sequence[StackRow]) -> dict[str, dict[str, Part]]:
    """Stack -> part -> what it is; where the stack is dual, its single blocks' parts too."""
    out = {}
    for row in stacks:
        out[row.path] = table(row)
        if row.kind == "dual":
            out[row.path + SINGLE] = table(row.single)
    return out


def returns(stacks: Sequence[StackRow]) -> dict[str, tuple[str, ...]]:
    return {row.path: row.returns for row in stacks}


@cache
def student_class(family: str) -> Any:
    """The class of a family's hybrid students, a subclass of the stock one. What it saves loads
    elsewhere.
    """
    from . import modeling_file as writing  # it reads this module's tables

    row = FAMILIES[family]
    cls = type(
        PREFIX + row.transformer,
        (getattr(diffusers, row.transformer),),
        {
            "__module__": __name__,
            "__doc__": (
                f"{row.transformer} with single-stream blocks and without some parts, as its "
                f"config "
                f"says."
            ),
        },
    )
    return hybrid(
        writing.module_name(family),
        lambda: writing.source(family),
        part_tables(row.stacks),
        returns(row.stacks),
        dual_stack(family),
        block_class(family),
    )(cls)


def __getattr__(name: str) -> Any:
    """The classes by their names, for pickle."""
    for family, row in FAMILIES.items():
        if name == PREFIX + row.transformer:
            return student_class(family)
    raise AttributeError(name)
