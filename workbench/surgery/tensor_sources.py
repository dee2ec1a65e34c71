"""What every tensor of a student is made of; its bytes are computed a few MiB at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from .. import plans
from ..families import Family, Layout, StackRow
from ..models import checkpoints, describe_module, quiet
from ..models.checkpoints import Reader, raw_bytes
from ..models.headers import TensorInfo, headers
from ..records import Plan, Span, Teacher
from ..students import stock_class
from ..students.modulation_factors import Factoring, factoring_of, linear_of
from ..students.modulation_fit import Basis
from ..students.weights_from_span import (
    Window,
    fat_tensor,
    student_layout,
    student_tensor,
)
from .student_config import CUSTOM

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
        """Its bytes in order. Memory does not grow with the tensor unless it loses or gains rows."""
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
    basis: Basis | None = None,
) -> Recipe:
    """Every tensor of the student, blocks renumbered without gaps. `config` is the student's;
    `dtype` None keeps the stored one; `basis` is of the conditioning vectors, where a modulation is
    factored.

    Fat: the tensors of the stock class, with tied weights written out and dropped parts emptied.
    """
    tensors = headers(folder)
    family = plans.family_of(teacher)
    stock = stock_layouts(family, config) if fat else {}
    pieces: Recipe = {}
    for path, spans in plan.stacks.items():
        for index, span in enumerate(spans):
            layout = teacher.stack(path).tensors(span.source[0])
            source = Source(tensors, path, span, family.stack(path), layout, dtype, basis)
            if fat and not source.is_stock(stock[path][index]):
                block = source.fat_pieces(stock[path][index])
            else:
                block = source.pieces()
            for name, piece in block.items():
                pieces[f"{path}.{index}.{name}"] = piece
    stacks = tuple(f"{path}." for path in plan.stacks)
    for name, info in tensors.items():
        if not name.startswith(stacks):
            pieces[name] = outside_piece(name, info, dtype)
    return pieces


def stored_as(stored: torch.dtype, dtype: torch.dtype | None) -> torch.dtype:
    """The dtype to write a tensor in: integers keep theirs."""
    return dtype if dtype is not None and stored.is_floating_point else stored


def outside_piece(name: str, info: TensorInfo, dtype: torch.dtype | None) -> Piece:
    """A tensor outside the blocks: the teacher's, perhaps in another dtype."""
    written = stored_as(info.torch_dtype, dtype)
    if written == info.torch_dtype:
        return Piece(written, info.shape, name, None)
    return Piece(written, info.shape, name, lambda read, window: read(name))


@dataclass(frozen=True)
class Source:
    """What one student block is made of: a span of the teacher's blocks.

    tensors: of the teacher's checkpoint. layout: of the span's first block.
    """

    tensors: Mapping[str, TensorInfo]
    path: str
    span: Span
    row: StackRow
    layout: Layout
    dtype: torch.dtype | None
    basis: Basis | None = None

    def is_stock(self, stock: Layout) -> bool:
        """Whether the stock class holds the block as it is."""
        changed = self.span.drop or self.span.rank
        plain = not changed and self.span.stream in (None, self.row.kind)
        return plain and self.layout == stock

    def key(self, block: int, name: str) -> str:
        return f"{self.path}.{block}.{name}"

    def pieces(self) -> Recipe:
        """The student block's own tensors."""
        layout = student_layout(self.layout, self.span, self.row)
        pieces = {}
        for name, shape in layout.items():
            if self.is_new_factor(name):
                pieces[name] = self.factor_piece(name, shape)
            else:
                pieces[name] = self.piece(name)
        return pieces

    @cached_property
    def factoring(self) -> Factoring | None:
        return factoring_of(self.layout, self.span, self.row, self.basis)

    @cached_property
    def fitted(self) -> StackRow:
        return self.row.fitted(self.layout)

    def is_new_factor(self, name: str) -> bool:
        """Whether the tensor is a factor of a linear of the teacher's."""
        return self.factoring is not None and linear_of(name, self.row.modulation) != ""

    def factor_piece(self, name: str, shape: list[int]) -> Piece:
        """A factor of a modulation linear: computed from the whole linear at once."""
        any_name = next(iter(self.layout))
        stored = self.tensors[self.key(self.span.source[0], any_name)].torch_dtype
        written = stored_as(stored, self.dtype)
        return Piece(written, tuple(shape), "", partial(self.compute, name))

    def piece(self, name: str) -> Piece:
        """One tensor. Computing it on the meta device shows its shape, and whether it passes
        unchanged.
        """
        key = self.key(self.span.source[0], name)
        info = self.tensors[key]
        blank = torch.empty(info.shape, dtype=info.torch_dtype, device="meta")
        shaped = self.compute(name, lambda _: blank, None)
        written = stored_as(info.torch_dtype, self.dtype)
        unchanged = shaped is blank and written == info.torch_dtype
        make = None if unchanged else partial(self.compute, name)
        return Piece(written, tuple(shaped.shape), key, make)

    def compute(self, name: str, read: Read, window: Window | None) -> torch.Tensor:
        """The tensor, or the rows of it that the window names."""
        known: dict[str, torch.Tensor] = {}  # a mean reads the first one twice

        def read_tensor(block: int, tensor: str) -> torch.Tensor:
            key = self.key(block, tensor)
            if block != self.span.source[0]:
                return read(key)
            if key not in known:
                known[key] = read(key)
            return known[key]

        return student_tensor(name, read_tensor, self.span, self.fitted, window, self.factoring)

    def fat_pieces(self, stock: Layout) -> Recipe:
        """The tensors of the stock class's block that behaves as the student block does."""
        any_name = next(iter(self.layout))
        stored = self.tensors[self.key(self.span.source[0], any_name)].torch_dtype
        written = stored_as(stored, self.dtype)
        return {
            name: Piece(written, tuple(shape), "", partial(self.compute_fat, name, stock))
            for name, shape in stock.items()
        }

    def compute_fat(
        self, name: str, stock: Layout, read: Read, window: Window | None
    ) -> torch.Tensor:
        def read_tensor(block: int, tensor: str) -> torch.Tensor:
            return read(self.key(block, tensor))

        return fat_tensor(name, read_tensor, self.layout, stock, self.span, self.row, self.basis)


def stock_layouts(family: Family, config: Mapping[str, Any]) -> dict[str, list[Layout]]:
    """Stack -> block -> tensors, of the stock class at the student's depth."""
    ours = (*CUSTOM, "auto_map", "_class_name")
    plain = {key: value for key, value in config.items() if key not in ours}
    with torch.device("meta"), quiet():
        described = describe_module(stock_class(family).from_config(plain))
    layouts: dict[str, list[Layout]] = {}
    for stack in described.stacks:
        layouts[stack.path] = [stack.tensors(block) for block in range(stack.depth)]
    return layouts
