"""What a student block's weights are: a pure function from teacher blocks to tensors.

Memory surgery and disk surgery call the same `student_tensor`, one tensor at a time, so they agree bit for bit.
Arithmetic is in float32 (float64 for float64 weights) and cast back to the tensor's dtype once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from .families import Part, Rows, StackRow, inside
from .records import BadInput, Init, Span

Tensors = dict[str, torch.Tensor]
Window = tuple[int, int]  # of a tensor read in slabs: number of the slab's first row, rows of the whole tensor


def student_tensor(name: str, read: Callable[[int], torch.Tensor], span: Span, row: StackRow,
                   window: Window | None = None) -> torch.Tensor:
    """One tensor of the student block that `span` makes; `read(block)` gives the teacher's tensor of that name.

    `row` is fitted to the block (StackRow.fitted). With a window, `read` gives a slab of rows, and the result is that slab.
    Order: initialise from the span (init), fold the gain, then empty the dropped parts. A plain block's tensor comes
    back unchanged. Raises BadInput for a stream change.
    """
    if span.stream is not None and span.stream != row.kind:
        raise BadInput(f"block {span.first} with stream {span.stream}", f"stream {row.kind}", "remove stream: not built yet")
    tensor = read(span.source[0])
    kind = tensor.dtype
    if len(span.source) > 1:
        tensor = _mean((read(block) for block in span.source), len(span.source))
    tensor = folded(name, tensor, span.gain, row, window)
    for part in span.drop:
        tensor = emptied(name, tensor, row.parts[part], window)
    return tensor.to(kind)


def student_block_state(teacher_states: Callable[[int], Mapping[str, torch.Tensor]], span: Span, row: StackRow) -> Tensors:
    """All tensors of the student block; `teacher_states(block)` gives a teacher block's state dict."""
    states = {block: teacher_states(block) for block in span.source}
    row = row.fitted(_layout(states[span.source[0]]))
    return {name: student_tensor(name, lambda block, name=name: states[block][name], span, row)  # type: ignore[misc]
            for name in states[span.source[0]]}


def merged_state(states: Sequence[Mapping[str, torch.Tensor]], init: Init, gain: float, row: StackRow) -> Tensors:
    """Several blocks' state dicts made into one: `init` says how they start, `gain` scales the residual step.

    init mean: local weight averaging of Amber-Image (arXiv 2602.17047). The gain is ours: with gain = number of blocks
    one block takes the step of all of them.
    """
    span = Span(blocks=(0, len(states) - 1), init=init, gain=gain)
    return student_block_state(lambda block: states[block], span, row)


def fold_gain(state: Mapping[str, torch.Tensor], row: StackRow, gain: float) -> Tensors:
    """A state dict whose residual branches give `gain` times what they gave: residual(gain g) = g x residual."""
    row = row.fitted(_layout(state))
    return {name: folded(name, tensor, gain, row).to(tensor.dtype) for name, tensor in state.items()}


def without_parts(state: Mapping[str, torch.Tensor], parts: Iterable[str], row: StackRow) -> Tensors:
    """A state dict in which the named parts contribute what takes their place (DESIGN section 2): usually nothing."""
    out = dict(state)
    row = row.fitted(_layout(state))
    for part in parts:
        out = {name: emptied(name, tensor, row.parts[part]) for name, tensor in out.items()}
    return out


def _layout(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _mean(tensors: Iterable[torch.Tensor], count: int) -> torch.Tensor:
    """Mean in at least float32, adding one tensor at a time: two tensors in memory, whatever the count."""
    total: torch.Tensor | None = None
    for tensor in tensors:
        total = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True) if total is None else total.add_(tensor)
    assert total is not None
    return total.div_(count)


def folded(name: str, tensor: torch.Tensor, gain: float, row: StackRow, window: Window | None = None) -> torch.Tensor:
    """The tensor with the rows that scale the residual branches multiplied by `gain`."""
    rows = [rows for rows in row.gain if inside(name, (rows.tensor,))]
    if gain == 1 or not rows:
        return tensor
    if tensor.ndim == 0 or not tensor.is_floating_point():
        raise BadInput(f"gain on tensor {name} of {tensor.dtype}", "floating-point weights", "build before quantizing")
    out = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
    for chunk in (chunk for part in rows for chunk in _chunks(out, part, window)):
        chunk.mul_(gain)
    return out


def emptied(name: str, tensor: torch.Tensor, part: Part, window: Window | None = None) -> torch.Tensor:
    """The tensor after `part` is gone: zero, except that a modulation without its linear leaves gate 1."""
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


def _chunks(tensor: torch.Tensor, rows: Rows, window: Window | None = None) -> list[torch.Tensor]:
    """Views of the rows or columns named, as far as they lie in the window; a bias has no columns."""
    assert rows.of is not None, f"the row of {rows.tensor} is not fitted to its block"
    if tensor.ndim <= rows.dim:
        return []
    size = tensor.shape[rows.dim]
    start, whole = window if window and rows.dim == 0 else (0, size)
    step = -(-whole // rows.of)  # as torch.chunk has it
    ends = [(max(index * step - start, 0), min((index + 1) * step - start, size)) for index in rows.chunks]
    return [tensor.narrow(rows.dim, first, last - first) for first, last in ends if first < last]
