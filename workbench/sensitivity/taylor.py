"""The first-order estimate of what dropping a block does to the prediction: all blocks at once.

Dropping block l takes its residual r_l = output - input away. To first order the prediction v then
changes by J_l r_l, with J_l = dv / d(output of block l), so that

    ||v - v_edit||^2 / ||v||^2  is about  ||J_l r_l||^2 / ||v||^2

J_l is too large to write down. A probe u with independent entries of +1 and -1 has E[u u^T] = 1, so
E[<u, J_l r_l>^2] = ||J_l r_l||^2 (Hutchinson 1989), and <u, J_l r_l> = <J_l^T u, r_l> needs one
backward pass of <u, v> for all blocks together. In practice every block gets a gate g_l = 0 per
sample, output + g_l * r_l, and d<u, v> / d g_l is that number.

Unbiased for the first-order change; how well the first order predicts the whole change is another
matter (docs/sensitivity.md has the rank correlation). Relation to published scores: Molchanov et
al. (arXiv 1906.10771, the first-order criterion) score a parameter or a gate by (dE / dg * g)^2,
averaged over samples, with the task's loss E; Shortened LLaMA (arXiv 2402.02834, criterion Taylor)
sums |dL / dW * W| over the weights of a block, with the language model's loss. Here the model's own
prediction is the target, and the gradient of that error is 0 where nothing is changed: so the loss
is replaced by random probes of the prediction itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..models.blocks import Block, Forward, State, as_output, streams_in, streams_out
from ..models.replay import Change
from ..models.sampling import Call
from .error import check_finite
from .results import Key, Scores
from .scan import Scan

PROBES = 1  # backward passes of a call
BACKWARD = 2  # a backward counts as this many forwards


def taylor(scan: Scan, call: Call) -> Scores:
    """||J_l r_l||^2 / ||v||^2 per sample, estimated by PROBES random probes; higher = keep.

    A share of 1, as the metric prediction has: 0.07 is 7 %. Its rows bear the edit `drop`, whose
    score it estimates. A single score is noisy (the square of a normal number, nearly: its standard
    deviation is 1.4 times its mean), the mean over prompts and timesteps is what counts. The probes
    of a call depend on its group and timestep only.

    Memory: the graph of one forward. Where the weights are large (scan.keeps_edited is not set) the
    blocks are checkpointed: only what they take is kept, and every backward runs each block once
    more. Raises BadInput where the prediction is not finite.
    """
    return measured(scan, call, PROBES, checkpointed=not scan.keeps_edited)


def measured(scan: Scan, call: Call, probes: int, checkpointed: bool) -> Scores:
    """The scores by any number of probes, with the blocks' activations kept or computed again."""
    exact = torch.promote_types(scan.replay.dtype, torch.float32)
    gates = {}
    for place in scan.blocks:
        closed = torch.zeros(call.samples, dtype=exact, device=scan.replay.device)
        gates[place] = closed.requires_grad_()
    changes: list[Change] = []
    for place, block in scan.blocks.items():
        changes.append((block.module, gated(block, gates[place], checkpointed)))
    with frozen(scan.transformer):
        arguments = scan.replay.arguments(call)
        prediction = scan.replay.graphed_prediction(arguments, changes)
        check_finite(prediction, "no edit", call.timestep)
        squares = probed(prediction, list(gates.values()), probes, generator_of(call))
    scan.replay.evaluations += BACKWARD * probes * len(gates)
    sizes = prediction.detach().to(exact).flatten(1).square().sum(1)  # (B,)
    scores: Scores = {}
    for place, square in zip(gates, squares, strict=True):
        scores[Key(*place, "drop")] = (square / sizes).tolist()
    return scores


def probed(
    prediction: torch.Tensor,
    gates: Sequence[torch.Tensor],
    probes: int,
    generator: torch.Generator,
) -> list[torch.Tensor]:
    """(d<u, v> / d gate)^2 per sample and gate, mean over random probes u of +1 and -1: (B,) each.

    v: the prediction (B, ...), on the graph of the gates (B,).
    """
    total = [torch.zeros_like(gate, requires_grad=False) for gate in gates]
    for number in range(probes):
        probe = torch.randint(0, 2, prediction.shape, generator=generator) * 2 - 1
        product = (prediction.to(gates[0].dtype) * probe.to(prediction.device)).sum()
        slopes = torch.autograd.grad(product, gates, retain_graph=number + 1 < probes)
        for index, slope in enumerate(slopes):
            total[index] += slope.detach().square() / probes
    return total


def gated(block: Block, gate: torch.Tensor, checkpointed: bool) -> Callable[[Forward], Forward]:
    """A change for `forwards`: the block returns output + gate * residual, with a gate (B,) of 0.

    The prediction does not change, and its slope along the gate is J r. checkpointed: what happens
    inside the block is computed again in the backward.
    """

    def change(old: Forward) -> Forward:
        def new(*args: Any, **kwargs: Any) -> Any:
            taken = streams_in(block.row, old, args, kwargs)
            returned = streams_out(block.row, old(*args, **kwargs))
            return as_output(block.row, opened(gate, taken, returned))

        def again(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(new, *args, use_reentrant=False, **kwargs)

        return again if checkpointed else new

    return change


def opened(gate: torch.Tensor, taken: State, returned: State) -> State:
    """Every stream that a block takes and returns, plus gate * (what the block added to it)."""
    state = {}
    for name, value in returned.items():
        state[name] = value
        if name in taken:
            residual = value.detach().to(gate.dtype) - taken[name].detach().to(gate.dtype)
            factor = gate.view(-1, *[1] * (value.dim() - 1))  # (B, 1, 1)
            state[name] = value + (factor * residual).to(value.dtype)
    return state


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradients for the weights: the graph then keeps less, and a backward costs less."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def generator_of(call: Call) -> torch.Generator:
    """The same probes for a call in every run and process."""
    seed = zlib.crc32(f"{call.group} {call.timestep:.3f}".encode())
    return torch.Generator().manual_seed(seed)
