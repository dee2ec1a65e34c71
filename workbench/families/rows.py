"""The words of the families table. Names of tensors are relative to the block. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..records import BadInput

Layout = Mapping[str, Sequence[int]]  # tensor name inside the block -> shape


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

    def count(self, shape: Sequence[int]) -> int:
        """How many numbers of a tensor of this shape they are; a bias has no columns."""
        total = 1
        for size in shape:
            total *= size
        return (
            total * sum(c < (self.of or 1) for c in self.chunks) // (self.of or 1)
            if len(shape) > self.dim
            else 0
        )


def whole(*tensors: str) -> tuple[Rows, ...]:
    """Every number of these modules or parameters."""
    return tuple(Rows(tensor, (0,), 1) for tensor in tensors)


@dataclass(frozen=True)
class Part:
    """A removable piece of a block: modules that go whole, and rows or columns of shared linears
    that go with them.

    `gates` are rows of a modulation's bias that do not become 0 but `open`: without its linear the
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

    def gone_from(self, layout: Layout) -> bool:
        """Whether a block of this layout lacks the part."""
        if self.modules:
            return not any(inside(tensor, self.modules) for tensor in layout)
        return any(
            (fitted := Fit(layout).one(replace(rows, of=None))) is None
            or min(rows.chunks) >= (fitted.of or 0)
            for rows in self.rows
        )


@dataclass(frozen=True)
class StackRow:
    """One ModuleList.

    inputs/returns name the streams in the block's signature and in its return order; a block that
    returns one tensor has one name. `kind` dual: text and image have weights of their own. `tie`
    says which image module a text module's weights are copied from when a dual block becomes
    single; where the image's tensor is longer (SD3.5's dual attention), its leading rows are meant.
    `gain` lists what scales the residual branches (DESIGN section 2).
    """

    path: str
    depth_key: str
    kind: str  # dual | single
    inputs: tuple[str, ...]
    returns: tuple[str, ...]
    parts: Mapping[str, Part]
    tie: Mapping[str, str] = field(default_factory=dict)
    gain: tuple[Rows, ...] = ()
    pinned: tuple[int, ...] = ()  # blocks that must stay as they are; negative counts from the end
    per_index: tuple[str, ...] = ()  # config keys that list block numbers
    _fitted: dict[object, StackRow] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def text(self) -> tuple[str, ...]:
        """The modules that only the text stream uses: they go when a dual block becomes single."""
        return tuple(self.tie)

    def pinned_in(self, depth: int) -> frozenset[int]:
        """Numbers of the pinned blocks in a stack of this depth."""
        return frozenset(p % depth for p in self.pinned)

    @cached_property
    def single(self) -> StackRow:
        """The row of a block of this stack that was made single: no text modules, and all of the
        attention is the one stream's.
        """
        parts = {
            name: replace(
                part,
                modules=tuple(
                    dict.fromkeys("attn" if inside(m, ("attn",)) else m for m in part.modules)
                ),
            )
            for name, part in self.parts.items()
            if not name.startswith("text.")
        }
        return replace(
            self,
            kind="single",
            parts=parts,
            tie={},
            gain=tuple(r for r in self.gain if not inside(r.tensor, self.text)),
        )

    def fitted(self, layout: Layout) -> StackRow:
        """The same row with every `of` known, for a block of this layout, and without parts the
        block lacks.

        A student's block tells by its tensors what was done to it: one without text modules is
        single, one whose part is gone lacks the part's modules, and linears that lost rows are
        counted as they are.
        """
        # asked for once a block, in every preview
        key = tuple((name, *shape) for name, shape in layout.items())
        if key not in self._fitted:
            self._fitted[key] = self._fit(layout)
        return self._fitted[key]

    def _fit(self, layout: Layout) -> StackRow:
        row = (
            self.single
            if self.kind == "dual" and not any(inside(name, self.text) for name in layout)
            else self
        )
        fit = Fit(
            layout,
            tuple(
                rows for part in row.parts.values() if part.gone_from(layout) for rows in part.rows
            ),
        )
        parts = {
            name: replace(part, rows=fit.all(part.rows), gates=fit.all(part.gates))
            for name, part in row.parts.items()
            if not part.gone_from(layout)
        }
        return replace(row, parts=parts, gain=fit.all(row.gain))

    def lacking(self, layout: Layout) -> tuple[str, ...]:
        """Parts that a teacher block of this layout, a student's, has lost already."""
        held = self.fitted(layout)
        return tuple(
            name
            for name in (self if held.kind == self.kind else self.single).parts
            if name not in held.parts
        )

    def student_layout(
        self, layout: Layout, stream: str | None, drop: Sequence[str]
    ) -> dict[str, list[int]]:
        """Tensors of the student block that a teacher block of this layout becomes: text modules go
        with stream single, dropped parts' modules go, and linears they share with others lose their
        rows or columns."""
        if stream == "single" and self.kind == "dual":
            drop = (*drop, *self.lacking(layout))
            layout = {name: shape for name, shape in layout.items() if not inside(name, self.text)}
        parts = [part for name, part in self.fitted(layout).parts.items() if name in drop]
        gone = tuple(module for part in parts for module in part.modules)
        # two parts may share rows
        rows = tuple(dict.fromkeys(rows for part in parts for rows in part.rows))
        return {
            name: left(name, shape, rows)
            for name, shape in layout.items()
            if not inside(name, gone)
        }


def left(name: str, shape: Sequence[int], rows: Sequence[Rows]) -> list[int]:
    """The shape of a tensor after the rows and columns named are gone; fitted rows."""
    out = list(shape)
    for dim in range(len(shape)):
        mine = [r for r in rows if inside(name, (r.tensor,)) and r.dim == dim]
        if mine:
            of = mine[0].of or 1
            out[dim] -= (
                shape[dim] // of * len({chunk for r in mine for chunk in r.chunks if chunk < of})
            )
    return out


@dataclass(frozen=True)
class Fit:
    """Fills in `of` from the shapes of one block, from which the rows in `gone` were cut."""

    layout: Layout
    gone: tuple[Rows, ...] = ()

    def all(self, rows: tuple[Rows, ...]) -> tuple[Rows, ...]:
        return tuple(fitted for r in rows if (fitted := self.one(r)) is not None)

    def one(self, rows: Rows) -> Rows | None:
        """None where the block has no such tensor."""
        cut = {
            chunk
            for r in self.gone
            if (r.tensor, r.dim) == (rows.tensor, rows.dim)
            for chunk in r.chunks
        }
        of = rows.of
        if of is None:
            shape = self.layout.get(f"{rows.tensor}.weight")
            if shape is None:
                return None
            long, short = shape[rows.dim], shape[1 - rows.dim]
            if long % short:
                raise BadInput(
                    f"{rows.tensor}.weight of {list(shape)}",
                    f"a multiple of {short} along dimension {rows.dim}",
                    "this model's widths do not fit its family's row",
                )
            of = long // short
        else:
            of -= sum(chunk < of for chunk in cut)
        chunks = tuple(
            chunk - sum(c < chunk for c in cut) for chunk in rows.chunks if chunk not in cut
        )
        return replace(rows, chunks=chunks, of=of)


@dataclass(frozen=True)
class Family:
    """One diffusers transformer class and how its pipeline is called.

    `guidance` is the pipeline's argument for the guidance scale; None where the workbench does not
    drive the sampler (recorded inputs serve instead). `negative`: guidance needs a negative prompt
    (classifier-free), else the model was distilled to take the scale itself. `batched` is the order
    of the branches where the pipeline runs both in one call.
    """

    name: str
    transformer: str  # diffusers class name
    pipeline: str
    stacks: tuple[StackRow, ...]  # in execution order
    guidance: str | None = None
    negative: bool = True
    off: float = 1.0  # the guidance that means none
    batched: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)  # passed to every pipeline call
    variance: bool = False  # the output may carry as many variance channels behind the prediction
    # side in pixels of the square that one image token covers: the VAE's stride times the patch
    token_pixels: int = 16

    def stack(self, path: str) -> StackRow:
        for row in self.stacks:
            if row.path == path:
                return row
        raise BadInput(
            f"stack {path!r} is not in family {self.name}",
            "one of " + ", ".join(s.path for s in self.stacks),
            "rename it",
        )


def inside(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a tensor name lies in one of the modules."""
    return any(name == module or name.startswith(module + ".") for module in modules)
