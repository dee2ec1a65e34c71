"""What a student block's weights are: a pure function from teacher blocks to tensors.

Memory surgery and disk surgery call the same `student_tensor`, one tensor at a time, so they agree
bit for bit. Arithmetic is in float32 (float64 for float64 weights) and cast back to the tensor's
dtype once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from ..families import Layout, Part, Rows, StackRow, inside
from ..records import BadInput, Init, Span

Tensors = dict[str, torch.Tensor]
# of a tensor read in slabs: number of the slab's first row, rows of the whole tensor
Window = tuple[int, int]


def student_layout(layout: Layout, span: Span, row: StackRow) -> dict[str, list[int]]:
    """Name and shape of every tensor of the student block that `span` makes of teacher blocks of
    this layout.
    """
    return row.student_layout(layout, span.stream, span.drop)


def student_names(layout: Layout, span: Span, row: StackRow) -> list[str]:
    """Names of the tensors of the student block: without text modules where it is single, without
    those of dropped parts.
    """
    return list(student_layout(layout, span, row))


def student_tensor(
    name: str,
    read: Callable[[int], torch.Tensor],
    span: Span,
    row: StackRow,
    window: Window | None = None,
) -> torch.Tensor:
    """One tensor of the student block that `span` makes; `read(block)` gives the teacher's tensor
    of that name.

    `row` is fitted to the block (StackRow.fitted), `name` one of `student_names`. With a window,
    `read` gives a slab of rows, and the result is that slab; a tensor that loses rows must be read
    whole. Order: initialise from the span (init), fold the gain, cut the rows of dropped parts. A
    plain block's tensor comes back unchanged.
    """
    tensor = read(span.source[0])
    kind = tensor.dtype
    if len(span.source) > 1:
        tensor = _mean((read(block) for block in span.source), len(span.source))
    row = row.single if span.stream == "single" and row.kind == "dual" else row
    tensor = folded(name, tensor, span.gain, row, window)
    return cut(name, tensor, [rows for part in span.drop for rows in row.parts[part].rows]).to(kind)


def fat_tensor(
    name: str,
    read: Callable[[int, str], torch.Tensor],
    layout: Layout,
    stock: Layout,
    span: Span,
    row: StackRow,
) -> torch.Tensor:
    """One tensor of the student block in its stock class: tied text weights written out, dropped
    parts emptied instead of removed.

    `layout` is the teacher block's, `stock` the stock class's, `read(block, name)` gives a
    teacher's tensor, `row` is the family's as it stands in the table. A teacher block that is
    single already, or lacks parts, is filled up the same way. Raises BadInput where a teacher's
    linear has lost rows of its own.
    """
    had, full = row.fitted(layout), row.fitted(stock)
    single = full.kind == "dual" and "single" in (span.stream, had.kind)
    source = tied_name(name, row) if single else name
    if source in layout:
        plain = span.model_copy(update={"gain": 1.0, "stream": None, "drop": ()})
        tensor = student_tensor(source, lambda block: read(block, source), plain, had)
        if list(tensor.shape[1:]) != list(stock[name][1:]) or len(tensor) < stock[name][0]:
            raise BadInput(
                f"a code-free form of a student whose {name} has lost rows",
                "a teacher with whole linears",
                "leave out --fat",
            )
        # SD3.5's dual attention: the image's tensor is longer, its leading rows are meant
        tensor = tensor[: stock[name][0]]
    else:
        tensor = torch.zeros(
            tuple(stock[name]), dtype=read(span.source[0], next(iter(layout))).dtype
        )
    kind = tensor.dtype
    tensor = folded(name, tensor, span.gain, full)
    lacked = [
        part
        for part in full.parts
        if part not in had.parts and not (single and part.startswith("text."))
    ]
    for part in (*span.drop, *lacked):
        for each in (part, f"text.{part}") if single else (part,):
            tensor = emptied(name, tensor, full.parts[each]) if each in full.parts else tensor
    return tensor.to(kind).contiguous()


def tied_name(name: str, row: StackRow) -> str:
    """The image tensor that a text tensor's weights come from when a block is single; other names
    as they are.
    """
    for text, image in row.tie.items():
        if inside(name, (text,)):
            return image + name[len(text) :]
    return name


def student_block_state(
    teacher_states: Callable[[int], Mapping[str, torch.Tensor]], span: Span, row: StackRow
) -> Tensors:
    """All tensors of the student block; `teacher_states(block)` gives a teacher block's state dict."""
    states = {block: teacher_states(block) for block in span.source}
    layout = _layout(states[span.source[0]])
    names, row = student_names(layout, span, row), row.fitted(layout)
    state = {}
    for name in names:
        tensors = {block: blocks[name] for block, blocks in states.items() if name in blocks}
        state[name] = student_tensor(name, tensors.__getitem__, span, row)
    return state


def merged_state(
    states: Sequence[Mapping[str, torch.Tensor]], init: Init, gain: float, row: StackRow
) -> Tensors:
    """Several blocks' state dicts made into one: `init` says how they start, `gain` scales the
    residual step.

    init mean: local weight averaging of Amber-Image (arXiv 2602.17047). The gain is ours: with gain
    = number of blocks one block takes the step of all of them.
    """
    span = Span(blocks=(0, len(states) - 1), init=init, gain=gain)
    return student_block_state(lambda block: states[block], span, row)


def fold_gain(state: Mapping[str, torch.Tensor], row: StackRow, gain: float) -> Tensors:
    """A state dict whose residual branches give `gain` times what they gave: residual(gain g) = g x
    residual.
    """
    row = row.fitted(_layout(state))
    return {
        name: folded(name, tensor, gain, row).to(tensor.dtype) for name, tensor in state.items()
    }


def without_parts(
    state: Mapping[str, torch.Tensor], parts: Iterable[str], row: StackRow
) -> Tensors:
    """A state dict in which the named parts contribute what takes their place (DESIGN section 2):
    usually nothing.
    """
    out = dict(state)
    row = row.fitted(_layout(state))
    for part in parts:
        out = {name: emptied(name, tensor, row.parts[part]) for name, tensor in out.items()}
    return out


def _layout(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _mean(tensors: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """Mean in at least float32, adding one tensor at a time: two tensors in memory, whatever the
    count.
    """
    total: torch.Tensor | None = None
    for tensor in tensors:
        total = (
            tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
            if total is None
            else total.add_(tensor)
        )
    assert total is not None
    return total.div_(count)


def folded(
    name: str, tensor: torch.Tensor, gain: float, row: StackRow, window: Window | None = None
) -> torch.Tensor:
    """The tensor with the rows that scale the residual branches multiplied by `gain`."""
    rows = [rows for rows in row.gain if inside(name, (rows.tensor,))]
    if gain == 1 or not rows:
        return tensor
    if tensor.ndim == 0 or not tensor.is_floating_point():
        raise BadInput(
            f"gain on tensor {name} of {tensor.dtype}",
            "floating-point weights",
            "build before quantizing",
        )
    out = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
    for chunk in (chunk for part in rows for chunk in _chunks(out, part, window)):
        chunk.mul_(gain)
    return out


def emptied(
    name: str, tensor: torch.Tensor, part: Part, window: Window | None = None
) -> torch.Tensor:
    """The tensor after `part` is gone: zero, except that a modulation without its linear leaves
    gate 1.
    """
    mine = [rows for rows in part.rows if inside(name, (rows.tensor,))]
    whole = inside(name, part.modules)
    if not whole and not mine:
        return tensor
    out = torch.zeros_like(tensor) if whole else tensor.clone()
    gates = [rows for rows in part.gates if whole and name == f"{rows.tensor}.bias"]
    for chunk in (chunk for rows in mine for chunk in _chunks(out, rows, window)):
        chunk.zero_()
    for chunk in (chunk for rows in gates for chunk in _chunks(out, rows, window)):
        chunk.fill_(part.open)
    return out


def cut(name: str, tensor: torch.Tensor, rows: Sequence[Rows]) -> torch.Tensor:
    """The tensor without the rows and columns named; a view where what is left lies together."""
    for dim in range(tensor.ndim):
        mine = [r for r in rows if inside(name, (r.tensor,)) and r.dim == dim]
        if mine:
            gone = {chunk for r in mine for chunk in r.chunks}
            pieces = tensor.chunk(mine[0].of or 1, dim)
            kept = [index for index in range(len(pieces)) if index not in gone]
            if kept and kept == list(range(kept[0], kept[-1] + 1)):
                width = pieces[0].shape[dim]
                tensor = tensor.narrow(dim, kept[0] * width, len(kept) * width)
            else:
                tensor = (
                    torch.cat([pieces[index] for index in kept], dim)
                    if kept
                    else tensor.narrow(dim, 0, 0)
                )
    return tensor


def _chunks(tensor: torch.Tensor, rows: Rows, window: Window | None = None) -> list[torch.Tensor]:
    """Views of the rows or columns named, as far as they lie in the window; a bias has no columns."""
    assert rows.of is not None, f"the row of {rows.tensor} is not fitted to its block"
    if tensor.ndim <= rows.dim:
        return []
    size = tensor.shape[rows.dim]
    start, whole = window if window and rows.dim == 0 else (0, size)
    step = -(-whole // rows.of)  # as torch.chunk has it
    ends = [
        (max(index * step - start, 0), min((index + 1) * step - start, size))
        for index in rows.chunks
    ]
    return [tensor.narrow(rows.dim, first, last - first) for first, last in ends if first < last]
