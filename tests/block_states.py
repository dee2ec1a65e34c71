"""State dicts of blocks with a gain, or without some parts: a second way of computing students."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from workbench.families import StackRow
from workbench.records import Init, Span
from workbench.students.weights_from_span import Tensors, emptied, folded, student_block_state


def merged_state(
    states: Sequence[Mapping[str, torch.Tensor]], init: Init, gain: float, row: StackRow
) -> Tensors:
    """Several blocks' state dicts made into one: `init` says how they start, `gain` scales the
    residual step.
    """
    span = Span(blocks=(0, len(states) - 1), init=init, gain=gain)
    return student_block_state(lambda block: states[block], span, row)


def fold_gain(state: Mapping[str, torch.Tensor], row: StackRow, gain: float) -> Tensors:
    """A state dict whose residual branches give `gain` times what they gave."""
    row = row.fitted(layout_of(state))
    return {
        name: folded(name, tensor, gain, row).to(tensor.dtype) for name, tensor in state.items()
    }


def without_parts(
    state: Mapping[str, torch.Tensor], parts: Iterable[str], row: StackRow
) -> Tensors:
    """A state dict in which the named parts contribute what takes their place: usually nothing."""
    out = dict(state)
    row = row.fitted(layout_of(state))
    for part in parts:
        out = {name: emptied(name, tensor, row.parts[part]) for name, tensor in out.items()}
    return out


def layout_of(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
