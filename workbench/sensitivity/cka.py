"""PPCL's span scores (arXiv 2511.16156; CVPR 2026): which runs of blocks could linear maps stand in
for?

For every block i a linear probe p_i with bias is fitted to what the block adds: p_i(T_{i-1}) ~ T_i
- T_{i-1}, where T_i is the state after block i, by ridge least squares on calibration states (the
paper starts so and trains on; its code has no probes at all). A span u..k is replaced by its probes
one after the other, h <- h + p_i(h), from the teacher's T_{u-1}; the score is the linear CKA
(Kornblith et al. 2019) of h with the teacher's T_k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from ..models import Call
from ..models.blocks import Captured, Place
from ..records import Progress, Row
from .scan import Scan

TOKENS = 32  # of each stream of a sample, evenly spaced: 20 samples x 8 timesteps make 5120 rows
RIDGE = 1e-4  # of the mean eigenvalue


@dataclass
class States:
    """States of one stream of one stack: [before block 0, after block 0, ...], each a list of (n,
    D), one entry a call.
    """

    fit: list[list[torch.Tensor]] = field(default_factory=list)
    test: list[list[torch.Tensor]] = field(default_factory=list)


def span_rows(
    scan: Scan, calls: Iterable[Call], total: int, tokens: int = TOKENS, ridge: float = RIDGE
) -> Iterator[Progress]:
    """Rows (stack, block=u, last=k, edit "span", timestep None, score) of every span u..k, u <= k;
    the last Progress has them.

    A row says: with blocks u..k (both counted) replaced by linear probes, and the true state before
    u, the state after k has this CKA with the teacher's, 0 to 1; the mean over the stack's streams.
    HIGHER = the span is easier to replace, the other way round from every other metric. PPCL's
    criterion reads it along k: delta(u, k) = -(score(u, k) - score(u, k-1)). Probes are fitted on
    even samples and scored on odd ones, all timesteps together; with one sample, on the same.
    """
    held: dict[tuple[str, str], States] = {}
    number = 0
    for step, call in enumerate(calls, 1):
        _, _, captured = scan.reference(call)
        _collect(scan, captured, held, tokens)
        number += call.samples
        yield Progress(
            step=step, total=max(total, step), message=f"states at timestep {call.timestep:.0f}"
        )
    scores: dict[tuple[str, int, int], list[float]] = {}
    for (path, stream), states in held.items():
        for first, last, value in span_scores(states, ridge):
            scores.setdefault((path, first, last), []).append(value)
        yield Progress(
            step=max(total, 1), total=max(total, 1), message=f"probes of {path}, {stream}"
        )
    rows = [
        Row(stack=path, block=first, last=last, edit="span", score=sum(values) / len(values))
        for (path, first, last), values in scores.items()
    ]
    yield Progress(step=max(total, 1), total=max(total, 1), result=rows)


def _collect(
    scan: Scan, captured: Captured, held: dict[tuple[str, str], States], tokens: int
) -> None:
    """Add the chosen tokens' states of one forward, on the CPU."""
    for path in dict.fromkeys(place[0] for place in captured.order):
        run = [place for place in captured.order if place[0] == path]
        for stream in scan.blocks[run[0]].row.returns:
            states = _along(captured, run, stream)
            if len(states) < 2:
                continue
            kept = held.setdefault((path, stream), States())
            for index, state in enumerate(states):
                flat = state.flatten(1, -2)  # (B, N, D)
                chosen = (
                    torch.linspace(0, flat.shape[1] - 1, min(tokens, flat.shape[1])).round().long()
                )
                picked = flat[:, chosen.to(flat.device)].to("cpu", torch.float32)
                even = picked[::2]
                odd = picked[1::2] if len(picked) > 1 else picked
                for side, part in ((kept.fit, even), (kept.test, odd)):
                    if len(side) <= index:
                        side.append([])
                    side[index].append(part.flatten(0, 1))


def _along(captured: Captured, run: list[Place], stream: str) -> list[torch.Tensor]:
    """The stream before the first block and after each one, up to the block that does not return it
    (SD3's last).
    """
    states = [captured.inputs[run[0]].get(stream)]
    for place in run:
        states.append(captured.outputs[place].get(stream))
    end = states.index(None) if any(state is None for state in states) else len(states)
    return [state for state in states[:end] if state is not None]


def span_scores(states: States, ridge: float = RIDGE) -> Iterator[tuple[int, int, float]]:
    """(u, k, CKA) of every span of one stream."""
    exact = torch.float64 if states.fit[0][0].shape[-1] <= 1024 else torch.float32
    fit, test = (
        [torch.cat(parts).to(exact) for parts in side] for side in (states.fit, states.test)
    )
    probes = [probe(before, after - before, ridge) for before, after in pairwise(fit)]
    for first in range(len(probes)):
        state = test[first]
        for last in range(first, len(probes)):
            weight, bias = probes[last]
            state = state + state @ weight + bias
            yield first, last, linear_cka(state, test[last + 1])


def probe(
    inputs: torch.Tensor, targets: torch.Tensor, ridge: float = RIDGE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge least squares with bias: (n, D), (n, E) -> weight (D, E), bias (E); `ridge` in mean
    eigenvalues of the inputs.
    """
    middle, aim = inputs.mean(0), targets.mean(0)
    centred = inputs - middle
    square = centred.T @ centred  # (D, D)
    square.diagonal().add_(ridge * square.diagonal().mean() + torch.finfo(square.dtype).tiny)
    weight = torch.linalg.solve(square, centred.T @ (targets - aim))
    return weight, aim - middle @ weight


def linear_cka(one: torch.Tensor, other: torch.Tensor) -> float:
    """Linear CKA of (n, D) and (n, E), features centred: ||X'Y||^2 / (||X'X|| ||Y'Y||). 1 = alike
    up to rotation and scale.
    """
    x, y = one - one.mean(0), other - other.mean(0)
    if len(x) < x.shape[1]:  # the same through (n, n) products
        a, b = x @ x.T, y @ y.T
        value = (a * b).sum() / (a.norm() * b.norm())
    else:
        value = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    return float(value.nan_to_num(0.0).clamp(0, 1))
