"""What a student block's weights are: a pure function from teacher blocks to tensors.

Memory surgery and disk surgery call the same `student_tensor`, one tensor at a time, so they agree
bit for bit. Arithmetic is in float32 (float64 for float64 weights) and cast back to the tensor's
dtype once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from ..families import Layout, Part, Rows, StackRow, inside
from ..records import BadInput, Span
from .mean import in_float32, mean_of
from .modulation_factors import Factoring, factor_tensor, factoring_of, linear_of, whole_tensor
from .modulation_fit import Basis

Tensors = dict[str, torch.Tensor]
# of a tensor read in slabs: number of the slab's first row, rows of the whole tensor
Window = tuple[int, int]


def student_layout(layout: Layout, span: Span, row: StackRow) -> dict[str, list[int]]:
    """Name and shape of every tensor of the student block that `span` makes of teacher blocks of
    this layout.
    """
    return row.student_layout(layout, span.stream, span.drop, span.rank)


def student_names(layout: Layout, span: Span, row: StackRow) -> list[str]:
    """Names of the tensors of the student block: without text modules where it is single, without
    those of dropped parts.
    """
    return list(student_layout(layout, span, row))


def student_tensor(
    name: str,
    read: Callable[[int, str], torch.Tensor],
    span: Span,
    row: StackRow,
    window: Window | None = None,
    factoring: Factoring | None = None,
) -> torch.Tensor:
    """One tensor of the student block that `span` makes; `read(block, name)` gives a teacher's
    tensor.

    `row` is fitted to the block (StackRow.fitted), `name` one of `student_names`. With a window,
    `read` gives a slab of rows, and the result is that slab; a tensor that loses rows must be read
    whole, and factors take no window. Order: initialise from the span (init), factor the
    modulation where `factoring` says so, fold the gain, cut the rows of dropped parts. A plain
    block's tensor comes back unchanged.
    """
    if factoring is not None and linear_of(name, row.modulation):
        tensor, dtype = factor_tensor(name, read, span.source, row.modulation, factoring)
    else:
        tensor = read(span.source[0], name)
        dtype = tensor.dtype
        if len(span.source) > 1:
            tensor = mean_of(read(block, name) for block in span.source)
    if span.stream == "single" and row.kind == "dual":
        row = row.single
    tensor = folded(name, tensor, span.gain, row, window)
    rows = [rows for part in span.drop for rows in row.parts[part].rows]
    return cut(name, tensor, rows).to(dtype)


def fat_tensor(
    name: str,
    read: Callable[[int, str], torch.Tensor],
    layout: Layout,
    stock: Layout,
    span: Span,
    row: StackRow,
    basis: Basis | None = None,
) -> torch.Tensor:
    """One tensor of the student block in its stock class: tied text weights written out, factors
    multiplied out, dropped parts emptied instead of removed.

    `layout` is the teacher block's, `stock` the stock class's, `read(block, name)` gives a
    teacher's tensor, `row` is the family's as it stands in the table. A teacher block that is
    single already, or lacks parts, is filled up the same way. Raises BadInput where a teacher's
    linear has lost rows of its own.
    """
    teacher_row = row.fitted(layout)
    stock_row = row.fitted(stock)
    single = stock_row.kind == "dual" and "single" in (span.stream, teacher_row.kind)
    source = tied_name(name, row) if single else name
    plain = span.model_copy(update={"gain": 1.0, "stream": None, "drop": ()})
    factoring = factoring_of(layout, span, row, basis)

    def stored(tensor: str) -> torch.Tensor:
        return student_tensor(tensor, read, plain, teacher_row, factoring=factoring)

    student = student_layout(layout, plain, row)
    if source in student:
        tensor = stock_sized(name, stored(source), stock[name])
    elif linear_of(source, row.modulation_in(student)):
        tensor = stock_sized(name, whole_tensor(source, stored), stock[name])
    else:
        dtype = read(span.source[0], next(iter(layout))).dtype
        tensor = torch.zeros(tuple(stock[name]), dtype=dtype)
    dtype = tensor.dtype
    tensor = folded(name, tensor, span.gain, stock_row)
    for part in emptied_parts(span, teacher_row, stock_row, single):
        tensor = emptied(name, tensor, stock_row.parts[part])
    return tensor.to(dtype).contiguous()


def stock_sized(name: str, tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The tensor at the length the stock class has it. SD3.5's dual attention: the image's tensor
    is longer, its leading rows are meant. Raises BadInput for one that has lost rows.
    """
    if list(tensor.shape[1:]) != list(shape[1:]) or len(tensor) < shape[0]:
        raise BadInput(
            f"a code-free form of a student whose {name} has lost rows",
            "a teacher with whole linears",
            "leave out --fat",
        )
    return tensor[: shape[0]]


def emptied_parts(
    span: Span, teacher_row: StackRow, stock_row: StackRow, single: bool
) -> list[str]:
    """Parts of the stock class's block that must contribute nothing: those that the plan drops and
    those that the teacher lacks. Of a single-stream block both streams' parts go.
    """
    parts = list(span.drop)
    for part in stock_row.parts:
        if part not in teacher_row.parts and not (single and part.startswith("text.")):
            parts.append(part)
    if single:
        parts = [each for part in parts for each in (part, f"text.{part}")]
    return [part for part in parts if part in stock_row.parts]


def tied_name(name: str, row: StackRow) -> str:
    """The image tensor that a text tensor's weights come from when a block is single; other names
    as they are.
    """
    for text, image in row.tie.items():
        if inside(name, (text,)):
            return image + name[len(text) :]
    return name


def student_block_state(
    teacher_states: Callable[[int], Mapping[str, torch.Tensor]],
    span: Span,
    row: StackRow,
    basis: Basis | None = None,
) -> Tensors:
    """All tensors of the student block; `teacher_states(block)`: a teacher block's state dict.
    basis: of the conditioning vectors, where the modulation is factored.
    """
    states = {block: teacher_states(block) for block in span.source}
    layout = {name: tuple(tensor.shape) for name, tensor in states[span.source[0]].items()}
    fitted = row.fitted(layout)
    factoring = factoring_of(layout, span, row, basis)

    def read(block: int, name: str) -> torch.Tensor:
        return states[block][name]

    return {
        name: student_tensor(name, read, span, fitted, factoring=factoring)
        for name in student_names(layout, span, row)
    }


def folded(
    name: str, tensor: torch.Tensor, gain: float, row: StackRow, window: Window | None = None
) -> torch.Tensor:
    """The tensor with the rows that scale the residual branches multiplied by `gain`."""
    rows = [rows for rows in row.gain if rows.reaches(name)]
    if gain == 1 or not rows:
        return tensor
    if tensor.ndim == 0 or not tensor.is_floating_point():
        raise BadInput(
            f"gain on tensor {name} of {tensor.dtype}",
            "floating-point weights",
            "build before quantizing",
        )
    out = in_float32(tensor)
    for part in rows:
        for chunk in _chunks(out, part, window):
            chunk.mul_(gain)
    return out


def emptied(
    name: str, tensor: torch.Tensor, part: Part, window: Window | None = None
) -> torch.Tensor:
    """The tensor after `part` is gone: zero, except that a modulation without its linear leaves
    gate 1.
    """
    if inside(name, part.modules):
        out = torch.zeros_like(tensor)
        for rows in part.gates:
            if name == f"{rows.tensor}.bias":
                for chunk in _chunks(out, rows, window):
                    chunk.fill_(part.open)
        return out
    lost = [rows for rows in part.rows if inside(name, (rows.tensor,))]
    if not lost:
        return tensor
    out = tensor.clone()
    for rows in lost:
        for chunk in _chunks(out, rows, window):
            chunk.zero_()
    return out


def cut(name: str, tensor: torch.Tensor, rows: Sequence[Rows]) -> torch.Tensor:
    """The tensor without the rows and columns named; a view where what is left lies together."""
    for dim in range(tensor.ndim):
        along = [r for r in rows if r.reaches(name) and r.dim == dim]
        if along:
            lost = {chunk for r in along for chunk in r.chunks}
            tensor = _without_chunks(tensor, dim, along[0].of or 1, lost)
    return tensor


def _without_chunks(tensor: torch.Tensor, dim: int, of: int, lost: set[int]) -> torch.Tensor:
    pieces = tensor.chunk(of, dim)
    left = [index for index in range(len(pieces)) if index not in lost]
    if not left:
        return tensor.narrow(dim, 0, 0)
    if left[-1] - left[0] + 1 == len(left):
        width = pieces[0].shape[dim]
        return tensor.narrow(dim, left[0] * width, len(left) * width)
    return torch.cat([pieces[index] for index in left], dim)


def _chunks(tensor: torch.Tensor, rows: Rows, window: Window | None = None) -> list[torch.Tensor]:
    """Views of the rows or columns named, as far as they lie in the window; biases have no columns."""
    assert rows.of is not None, f"the row of {rows.tensor} is not fitted to its block"
    if tensor.ndim <= rows.dim:
        return []
    size = tensor.shape[rows.dim]
    start = 0
    total = size
    if window and rows.dim == 0:
        start, total = window
    step = -(-total // rows.of)  # as torch.chunk has it
    views = []
    for index in rows.chunks:
        first = max(index * step - start, 0)
        end = min((index + 1) * step - start, size)
        if first < end:
            views.append(tensor.narrow(rows.dim, first, end - first))
    return views
