"""What a scan will take: measured on its first call, or worked out from published sizes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import plans
from ..models import Call
from ..records import Teacher
from .naming import parse_edit
from .scan import SMALL, Scan


def estimate(
    scan: Scan, call: Call, calls: int, *, evaluations: int | None = None, sampling: int = 0
) -> dict[str, Any]:
    """seconds, memory_bytes, block_evaluations and what they are made of, from two timed forwards
    of one call.

    `evaluations` block forwards a call (None: the scan's own), for `calls` calls; `sampling`
    forwards of the sampler come on top. Memory is the weights, every block's cached state and the
    edited blocks kept beside them, plus, on a GPU, the peak of one forward; what a CPU needs within
    one block is not seen.
    """
    evaluations = scan.expected_evaluations if evaluations is None else evaluations
    scan.reference(call)
    cuda = scan.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(scan.device)
        torch.cuda.reset_peak_memory_stats(scan.device)
        held_before = torch.cuda.memory_allocated(scan.device)
    began = time.perf_counter()
    _, _, held = scan.reference(call)
    if cuda:
        torch.cuda.synchronize(scan.device)
    forward = time.perf_counter() - began
    states = {
        id(value): value.nbytes for state in held.outputs.values() for value in state.values()
    }
    largest = max(
        sum(p.nbytes for p in block.module.parameters()) for block in scan.blocks.values()
    )
    weights = sum(
        tensor.nbytes for tensor in (*scan.transformer.parameters(), *scan.transformer.buffers())
    )
    edited = (
        sum(
            sum(p.nbytes for p in scan.blocks[place].module.parameters())
            for edit in scan.edits
            if edit.kind != "drop"
            for place in scan.places(edit)
        )
        if scan.keep
        else largest * any(edit.kind != "drop" for edit in scan.edits)
    )
    peak = torch.cuda.max_memory_allocated(scan.device) - held_before if cuda else 0
    total = calls * evaluations
    return {
        "seconds": forward * (total / max(len(scan.blocks), 1) + sampling),
        "memory_bytes": weights + edited + max(sum(states.values()), peak),
        "block_evaluations": total,
        "forward_seconds": forward,
        "weights_bytes": weights,
        "states_bytes": sum(states.values()),
        "edited_bytes": edited,
        "calls": calls,
    }


def worked_out(
    teacher: Teacher,
    edits: Sequence[str],
    *,
    tokens: plans.Tokens,
    width: int,
    samples: int,
    timesteps: int,
    batch: int,
    flops: float,
    bandwidth: float = 0.0,
    steps: int = 0,
) -> dict[str, Any]:
    """The same on paper: no model, no device; the arithmetic of docs/sensitivity.md. Weights and
    states in bf16.

    `width`: of a token's state; `flops`: what the device really does a second; `bandwidth` (bytes a
    second): where the weights do not fit and every block comes over the bus for each of its
    forwards, while the last one runs; `steps`: sampler steps per sample, two forwards each. Two
    FLOPs a multiply-add of plans.work.
    """
    depth = sum(stack.depth for stack in teacher.stacks)
    block_flops = 2 * sum(plans.work(plans.identity(teacher), teacher, tokens).values()) / depth
    cached, naive = depth, depth
    for name in edits:
        edit = parse_edit(name, teacher)
        gone = edit.kind in ("drop", "merge")
        for index in range(depth - (edit.kind == "merge")):
            cached, naive = cached + depth - index - gone, naive + depth - gone
    weights = 2 * teacher.parameters
    block_bytes = 2 * max(
        stack.block_parameters(b) for stack in teacher.stacks for b in range(stack.depth)
    )
    states = 2 * depth * (tokens.image + tokens.text) * width * batch
    resident = weights if not bandwidth else 2 * teacher.outside + 2 * block_bytes
    per_block = max(block_flops * batch / flops, block_bytes / bandwidth if bandwidth else 0.0)
    batches = -(-samples // batch)
    calls, sampling = batches * timesteps, batches * steps * 2 * depth
    return {
        "block_flops": block_flops,
        "block_evaluations": calls * cached,
        "naive_block_evaluations": calls * naive,
        "calls": calls,
        "weights_bytes": weights,
        "block_bytes": block_bytes,
        "states_bytes": states,
        "seconds_per_block": per_block,
        "memory_bytes": resident + states + block_bytes * (weights >= SMALL),
        "seconds": (calls * cached + sampling) * per_block,
        "sampling_seconds": sampling * per_block,
        "naive_seconds": (calls * naive + sampling) * per_block,
    }


def in_words(found: Mapping[str, Any]) -> str:
    """One line for people."""
    minutes = found["seconds"] / 60
    span = f"{minutes:.0f} min" if minutes >= 2 else f"{found['seconds']:.0f} s"
    return (
        f"estimate: about {span}, {found['memory_bytes'] / 2**30:.1f} GiB, "
        f"{found['block_evaluations']} block forwards "
        f"in {found['calls']} calls"
    )
