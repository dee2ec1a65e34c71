"""Which tensors of a block a part takes, and which rows of them: arithmetic on names and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..records import BadInput

Layout = Mapping[str, Sequence[int]]  # tensor name inside the block -> shape

# A modulation linear in two factors: `<linear>.down` (k, d) and `<linear>.up` (6d, k), which keeps
# the bias.
DOWN = "down.weight"
UP = "up.weight"


@dataclass(frozen=True)
class Rows:
    """Some rows (dim 0) or columns (dim 1) of a tensor: chunk numbers out of `of` equal chunks
    along `dim`.

    `of` None: as many as the weight's `dim` is times its other side. So one row fits AdaLN linears
    of several sizes in one stack (SD3.5), and fused linears whose MLP may be wider or narrower
    (chunk 0 and the rest).
    """

    tensor: str  # module path inside the block ("txt_mod.1"), or a parameter ("scale_shift_table")
    chunks: tuple[int, ...]
    of: int | None
    dim: int = 0

    def reaches(self, name: str) -> bool:
        """Whether the tensor has such rows or columns. Of a linear in two factors the rows are
        those of the second one, the columns those of the first.
        """
        factor = name.removeprefix(f"{self.tensor}.")
        if factor == DOWN:
            return self.dim == 1
        if factor == UP:
            return self.dim == 0
        return inside(name, (self.tensor,))

    def count(self, shape: Sequence[int]) -> int:
        """How many numbers of a tensor of this shape they are; a bias has no columns."""
        if len(shape) <= self.dim:
            return 0
        of = self.of or 1
        return math.prod(shape) * sum(chunk < of for chunk in self.chunks) // of


def whole(*tensors: str) -> tuple[Rows, ...]:
    """Every number of these modules or parameters."""
    return tuple(Rows(tensor, (0,), 1) for tensor in tensors)


@dataclass(frozen=True)
class Part:
    """A removable piece of a block: whole modules, and rows or columns of linears that it shares
    with other parts.

    gates: rows of a modulation's bias that become `open` instead of 0, since without its linear the
    gate is 1 (tanh(20) is).
    """

    modules: tuple[str, ...]
    rows: tuple[Rows, ...] = ()
    gates: tuple[Rows, ...] = ()
    open: float = 1.0
    last_only: bool = False  # exists only in the last block of the stack

    @property
    def tensors(self) -> tuple[str, ...]:
        """Modules and parameters it takes something from."""
        return self.modules + tuple(rows.tensor for rows in self.rows)

    def is_removed_from(self, layout: Layout) -> bool:
        """Whether a block of this layout lacks the part.

        A part with modules is gone when they are. One that is only rows of shared linears is gone
        when a linear is too short for them.
        """
        if self.modules:
            return not any(inside(tensor, self.modules) for tensor in layout)
        for rows in self.rows:
            count = chunk_count(layout, rows)
            if count is None or min(rows.chunks) >= count:
                return True
        return False


def chunk_count(layout: Layout, rows: Rows) -> int | None:
    """How many chunks the weight has along `rows.dim`, each as long as its other side; None where
    the block has no such weight. Raises BadInput where the sides are not multiples.
    """
    shape = linear_shape(layout, rows.tensor)
    if shape is None:
        return None
    long = shape[rows.dim]
    short = shape[1 - rows.dim]
    if long % short:
        raise BadInput(
            f"{rows.tensor}.weight of {list(shape)}",
            f"a multiple of {short} along dimension {rows.dim}",
            "this model's widths do not fit its family's row",
        )
    return long // short


def linear_shape(layout: Layout, linear: str) -> tuple[int, int] | None:
    """Features out and in of a linear, in one matrix or in two factors; None where the block has
    no such linear.
    """
    down = layout.get(f"{linear}.{DOWN}")
    up = layout.get(f"{linear}.{UP}")
    if down is not None and up is not None:
        return up[0], down[1]
    shape = layout.get(f"{linear}.weight")
    return None if shape is None else (shape[0], shape[1])


def rank_of(layout: Layout, linear: str) -> int | None:
    """The rank of a linear in two factors; None for one in one matrix."""
    down = layout.get(f"{linear}.{DOWN}")
    return None if down is None else down[0]


def factored(layout: Layout, linears: Sequence[str], rank: int) -> dict[str, Sequence[int]]:
    """The layout with these linears in two factors of this rank, where the block has them."""
    out: dict[str, Sequence[int]] = {}
    for name, size in layout.items():
        linear, _, tensor = name.rpartition(".")
        if linear in linears and tensor == "weight":
            out[f"{linear}.{DOWN}"] = [rank, size[1]]
            out[f"{linear}.{UP}"] = [size[0], rank]
        elif linear in linears:
            out[f"{linear}.up.bias"] = size
        elif name.removesuffix(f".{DOWN}") in linears:
            out[name] = [rank, size[1]]
        elif name.removesuffix(f".{UP}") in linears:
            out[name] = [size[0], rank]
        else:
            out[name] = size
    return out


@dataclass(frozen=True)
class Fit:
    """Adjusts rows to one block, from whose linears the rows in `removed` were cut."""

    layout: Layout
    removed: tuple[Rows, ...] = ()

    def all(self, rows: Iterable[Rows]) -> tuple[Rows, ...]:
        """The rows that the block has, adjusted."""
        adjusted = [self.one(each) for each in rows]
        return tuple(each for each in adjusted if each is not None)

    def one(self, rows: Rows) -> Rows | None:
        """The same rows with `of` as the block has it, renumbered without the chunks that were cut;
        None where the block has no such tensor.
        """
        cut = self._cut_chunks(rows)
        if rows.of is None:
            count = chunk_count(self.layout, rows)
            if count is None:
                return None
        else:
            count = rows.of - count_below(rows.of, cut)
        present = [chunk for chunk in rows.chunks if chunk not in cut]
        chunks = tuple(chunk - count_below(chunk, cut) for chunk in present)
        return replace(rows, chunks=chunks, of=count)

    def _cut_chunks(self, rows: Rows) -> frozenset[int]:
        """Chunks of the same tensor and dimension that were cut."""
        same = [r for r in self.removed if (r.tensor, r.dim) == (rows.tensor, rows.dim)]
        return frozenset(chunk for r in same for chunk in r.chunks)


def count_below(limit: int, chunks: Iterable[int]) -> int:
    return sum(chunk < limit for chunk in chunks)


def left(name: str, shape: Sequence[int], rows: Sequence[Rows]) -> list[int]:
    """The shape of tensor `name` after these (fitted) rows and columns are cut."""
    out = list(shape)
    for dim, size in enumerate(shape):
        cut = [r for r in rows if r.dim == dim and r.reaches(name)]
        if cut:
            of = cut[0].of or 1
            chunks = {chunk for r in cut for chunk in r.chunks}
            out[dim] = size - size // of * count_below(of, chunks)
    return out


def inside(name: str, modules: Sequence[str]) -> bool:
    """Whether a tensor or module of this name is one of the modules, or lies in one."""
    return any(name == module or name.startswith(module + ".") for module in modules)
