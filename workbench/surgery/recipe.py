"""What every tensor of a student is made of, and its bytes when they are asked for, a few MiB at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch

from .. import plans
from ..families import Layout, StackRow
from ..models import checkpoints, describe_module, quiet
from ..models.checkpoints import Reader, TensorInfo, headers, raw_bytes
from ..records import Plan, Span, Teacher
from ..students.weights import Window, fat_tensor, student_names, student_tensor
from .settings import CUSTOM

# a tensor of the teacher, or the rows of it that the window names
Read = Callable[[str], torch.Tensor]
Make = Callable[[Read, Window | None], torch.Tensor]


@dataclass(frozen=True)
class Piece:
    """One tensor of the student: its dtype and shape, and what it is made of."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    # the teacher's tensor it comes from, or the first of them; empty where it comes from none
    source: str
    make: Make | None  # None: its bytes are the teacher's

    def pieces(self, reader: Reader) -> Iterator[memoryview]:
        """Its bytes in order. Memory does not grow with the tensor, unless rows of it go or come."""
        if self.make is None:
            yield from reader.stream(self.source)
            return
        info = reader.tensors.get(self.source)
        # no slab of the teacher's is a slab of ours
        if info is None or not self.shape or info.shape[:1] != self.shape[:1]:
            yield raw_bytes(self.make(reader.tensor, None).to(self.dtype))
            return
        rows = self.shape[0]
        count = max(checkpoints.SLAB * rows // max(info.bytes, 1), 1)
        for at in range(0, rows, count):
            end = min(at + count, rows)
            yield raw_bytes(self.make(partial(rows_of, reader, at, end), (at, rows)).to(self.dtype))


def rows_of(reader: Reader, start: int, end: int, name: str) -> torch.Tensor:
    """Rows `start` to `end` of a tensor of the teacher."""
    return reader.rows(name, start, end)


Recipe = dict[str, Piece]  # by the tensor's name in the student


def recipe(
    folder: Path,
    teacher: Teacher,
    plan: Plan,
    config: Mapping[str, Any],
    dtype: torch.dtype | None,
    fat: bool,
) -> Recipe:
    """Every tensor of the student, blocks renumbered without gaps. `config` is the student's;
    `dtype` None keeps the stored one.

    Fat: the tensors of the stock class, with tied weights written out and dropped parts emptied.
    """
    tensors, family = headers(folder), plans.family_of(teacher)
    whole = _stock_layouts(teacher, config) if fat else {}
    out: Recipe = {}
    for path, spans in plan.stacks.items():
        for index, span in enumerate(spans):
            layout, row = teacher.stack(path).tensors(span.source[0]), family.stack(path)
            stock = whole[path][index] if fat else layout
            if not fat or (layout == stock and not span.drop and span.stream in (None, row.kind)):
                made = _thin(tensors, path, span, row, layout, dtype)
            else:
                made = _fat(tensors, path, span, row, layout, stock, dtype)
            out |= {f"{path}.{index}.{name}": piece for name, piece in made.items()}
    stacks = tuple(f"{path}." for path in plan.stacks)
    return out | {
        name: _outside(name, info, dtype)
        for name, info in tensors.items()
        if not name.startswith(stacks)
    }


def _kind(stored: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and stored.is_floating_point else stored


def _outside(name: str, info: TensorInfo, dtype: torch.dtype | None) -> Piece:
    kind = _kind(info.torch_dtype, dtype)
    return Piece(
        kind,
        info.shape,
        name,
        None if kind == info.torch_dtype else lambda read, window: read(name),
    )


def _thin(
    tensors: Mapping[str, TensorInfo],
    path: str,
    span: Span,
    row: StackRow,
    layout: Layout,
    dtype: torch.dtype | None,
) -> Recipe:
    """The student block's own tensors. Which of them pass unchanged, and in what shape the others
    come out, `student_tensor` is asked.
    """
    first, fitted = span.source[0], row.fitted(layout)

    def make(name: str) -> Make:
        def made(read: Read, window: Window | None) -> torch.Tensor:
            held = read(f"{path}.{first}.{name}")  # asked for twice where a mean is taken
            return student_tensor(
                name,
                lambda block: held if block == first else read(f"{path}.{block}.{name}"),
                span,
                fitted,
                window,
            )

        return made

    out: Recipe = {}
    for name in student_names(layout, span, row):
        info = tensors[f"{path}.{first}.{name}"]
        blank = torch.empty(info.shape, dtype=info.torch_dtype, device="meta")
        shaped, kind = make(name)(lambda _: blank, None), _kind(info.torch_dtype, dtype)  # noqa: B023
        unchanged = shaped is blank and kind == blank.dtype
        out[name] = Piece(
            kind, tuple(shaped.shape), f"{path}.{first}.{name}", None if unchanged else make(name)
        )
    return out


def _fat(
    tensors: Mapping[str, TensorInfo],
    path: str,
    span: Span,
    row: StackRow,
    layout: Layout,
    stock: Layout,
    dtype: torch.dtype | None,
) -> Recipe:
    """The tensors of the stock class's block that behaves as the student block does."""
    stored = tensors[f"{path}.{span.source[0]}.{next(iter(layout))}"].torch_dtype

    def make(name: str) -> Make:
        return lambda read, _: fat_tensor(
            name, lambda block, held: read(f"{path}.{block}.{held}"), layout, stock, span, row
        )

    return {
        name: Piece(_kind(stored, dtype), tuple(shape), "", make(name))
        for name, shape in stock.items()
    }


def _stock_layouts(teacher: Teacher, config: Mapping[str, Any]) -> dict[str, list[Layout]]:
    """Stack -> block -> tensors, of the stock class at the student's depth."""
    plain = {
        key: value
        for key, value in config.items()
        if key not in (*CUSTOM, "auto_map", "_class_name")
    }
    with torch.device("meta"), quiet():
        described = describe_module(
            getattr(diffusers, plans.family_of(teacher).transformer).from_config(plain)
        )
    return {
        stack.path: [stack.tensors(block) for block in range(stack.depth)]
        for stack in described.stacks
    }
