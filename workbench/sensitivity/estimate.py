"""What a scan will take, measured on its first call."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..models.sampling import Call
from .scan import Reference, Scan


@dataclass(frozen=True)
class Estimate:
    """What a scan will take.

    memory_bytes: weights, every block's recorded state and the edited blocks kept beside them,
    plus, on a GPU, the peak of one forward; what a CPU needs within one block is not counted.
    waves: groups of candidates that are trained together (metric recovery), else 1.
    """

    seconds: float
    memory_bytes: int
    block_evaluations: int
    forward_seconds: float
    weights_bytes: int
    states_bytes: int
    edited_bytes: int
    calls: int
    waves: int = 1

    @property
    def sentence(self) -> str:
        minutes = self.seconds / 60
        duration = f"{minutes:.0f} min" if minutes >= 2 else f"{self.seconds:.0f} s"
        return (
            f"estimate: about {duration}, {self.memory_bytes / 2**30:.1f} GiB, "
            f"{self.block_evaluations} block forwards in {self.calls} calls"
        )


def estimate(
    scan: Scan, call: Call, calls: int, *, evaluations: int | None = None, sampling: int = 0
) -> Estimate:
    """From two timed forwards of one call, for `calls` calls.

    evaluations: block forwards a call (None: the scan's own). sampling: forwards of the sampler
    that come on top.
    """
    if evaluations is None:
        evaluations = scan.expected_evaluations
    scan.reference(call)  # the first forward is slower: kernels are chosen, memory is taken
    seconds, peak, reference = timed_forward(scan, call)
    states = states_bytes(reference)
    weights = tensor_bytes([*scan.transformer.parameters(), *scan.transformer.buffers()])
    edited = edited_bytes(scan)
    total = calls * evaluations
    return Estimate(
        seconds=seconds * (total / max(len(scan.blocks), 1) + sampling),
        memory_bytes=weights + edited + max(states, peak),
        block_evaluations=total,
        forward_seconds=seconds,
        weights_bytes=weights,
        states_bytes=states,
        edited_bytes=edited,
        calls=calls,
    )


def timed_forward(scan: Scan, call: Call) -> tuple[float, int, Reference]:
    """Seconds of one forward, the bytes it took at its peak (0 on a CPU), and what it gave."""
    on_gpu = scan.replay.device.type == "cuda"
    before = 0
    if on_gpu:
        torch.cuda.synchronize(scan.replay.device)
        torch.cuda.reset_peak_memory_stats(scan.replay.device)
        before = torch.cuda.memory_allocated(scan.replay.device)
    began = time.perf_counter()
    reference = scan.reference(call)
    peak = 0
    if on_gpu:
        torch.cuda.synchronize(scan.replay.device)
        peak = torch.cuda.max_memory_allocated(scan.replay.device) - before
    return time.perf_counter() - began, peak, reference


def states_bytes(reference: Reference) -> int:
    """Bytes of what all blocks returned; a tensor that two blocks return counts once."""
    tensors = {}
    for state in reference.states.outputs.values():
        for value in state.values():
            tensors[id(value)] = value
    return tensor_bytes(tensors.values())


def edited_bytes(scan: Scan) -> int:
    """Bytes of the edited blocks beside the model: all where they are kept, else the largest."""
    sizes = []
    for edit in scan.edits:
        if edit.row.new_weights:
            sizes += [block_bytes(scan.blocks[place].module) for place in scan.places(edit)]
    if scan.keeps_edited:
        return sum(sizes)
    return max(sizes, default=0)


def block_bytes(block: nn.Module) -> int:
    return tensor_bytes(block.parameters())


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
