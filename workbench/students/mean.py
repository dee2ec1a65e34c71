"""The mean of teacher blocks' tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def mean_of(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Mean in at least float32, adding one tensor at a time: two tensors in memory, whatever the
    count. Local weight averaging of Amber-Image (arXiv 2602.17047).
    """
    total: torch.Tensor | None = None
    count = 0
    for tensor in tensors:
        count += 1
        if total is None:
            total = in_float32(tensor)
        else:
            total.add_(tensor)
    assert total is not None
    return total.div_(count)


def in_float32(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in float32; float64 stays."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
