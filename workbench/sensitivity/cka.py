"""PPCL's span scores (arXiv 2511.16156; CVPR 2026): which runs of blocks can linear maps replace?

For every block i a linear probe p_i with bias is fitted to what the block adds: p_i(T_{i-1}) ~ T_i
- T_{i-1}, where T_i is the state after block i, by ridge least squares on calibration states (the
paper starts so and trains on; its code has no probes at all). A span u..k is replaced by its probes
one after the other, h <- h + p_i(h), from the teacher's T_{u-1}; the score is the linear CKA
(Kornblith et al. 2019) of h with the teacher's T_k.

Probes are fitted on one half of the prompts and scored on the other: scored on the same states, a
probe of a wide model with few tokens would score near 1 whatever the block does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from ..models.blocks import Captured, Place
from ..models.sampling import Call
from ..records import BadInput, Progress, Row
from .results import Measurement, no_calls
from .scan import Scan
from .scan_settings import Setting

TOKENS = 32  # of each stream of a sample, evenly spaced: 20 samples x 8 timesteps make 5120 rows
RIDGE = 1e-4  # of the mean eigenvalue
WIDEST_EXACT = 1024  # up to this width the least squares run in float64

StreamKey = tuple[str, str]  # (stack path, stream)


@dataclass
class States:
    """States of one stream of one stack: [before block 0, after block 0, ...], each a list of (n,
    D), one entry a call.

    fit: of the prompts that probes are fitted on. test: of those that they are scored on.
    """

    fit: list[list[torch.Tensor]] = field(default_factory=list)
    test: list[list[torch.Tensor]] = field(default_factory=list)


class Halves:
    """Which samples are held out: every second prompt, whatever the batches are."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # prompt -> its number, in the order of first use

    def held_out(self, call: Call) -> torch.Tensor:
        """(B,) bool: True for the samples that probes are scored on.

        Samples of one caption are on one side; without captions each sample is a prompt.
        """
        prompts = call.prompts or [f"{call.group} {sample}" for sample in range(call.samples)]
        numbers = [self._numbers.setdefault(prompt, len(self._numbers)) for prompt in prompts]
        return torch.tensor(numbers) % 2 == 1

    def check(self) -> None:
        """Raises BadInput where there is nothing to hold out."""
        if not self._numbers:
            raise no_calls()
        if len(self._numbers) < 2:
            raise BadInput(
                "one prompt to fit probes on and to score them on",
                "at least two: every second one is held out",
                "give more prompts",
            )


def measure(scan: Scan, calls: Iterator[Call], setting: Setting) -> Iterator[Progress]:
    """Rows (stack, block=u, last=k, edit "span", timestep None, score) of every span u..k, u <= k;
    the last Progress has the Measurement.

    A row says: with blocks u..k (both included) replaced by linear probes, and the teacher's state
    before u, the state after k has this CKA with the teacher's, 0 to 1; the mean over the stack's
    streams. HIGHER = the span is easier to replace, the other way round from every other metric.
    PPCL's criterion reads it along k: delta(u, k) = -(score(u, k) - score(u, k-1)). Raises BadInput
    for fewer than two prompts.
    """
    collected: dict[StreamKey, States] = {}
    sizes: dict[int, int] = {}
    halves = Halves()
    step = 0
    for step, call in enumerate(calls, 1):
        collect(scan, scan.reference(call).states, halves.held_out(call), collected)
        sizes[call.group] = call.samples
        message = f"states at timestep {call.timestep:.0f}"
        yield Progress(step=step, total=max(setting.total, step), message=message)
    halves.check()
    rows: list[Row] = []
    for path in dict.fromkeys(path for path, _ in collected):
        rows += span_rows(path, [s for (stack, _), s in collected.items() if stack == path])
        yield Progress(step=step, total=step, message=f"probes of {path}")
    yield Progress(
        step=step,
        total=step,
        result=Measurement(
            rows,
            facts={"samples": sum(sizes.values())},
            evaluations=scan.evaluations,
            naive_evaluations=scan.evaluations,
            steps=step,
        ),
    )


# --- states ---------------------------------------------------------------------------------------


def collect(
    scan: Scan,
    captured: Captured,
    held_out: torch.Tensor,
    collected: dict[StreamKey, States],
    tokens: int = TOKENS,
) -> None:
    """Add the chosen tokens' states of one forward, on the CPU."""
    for path in dict.fromkeys(place[0] for place in captured.order):
        run = [place for place in captured.order if place[0] == path]
        for stream in scan.blocks[run[0]].row.returns:
            states = along(captured, run, stream)
            if len(states) < 2:
                continue
            sides = collected.setdefault((path, stream), States())
            chosen = [evenly(state, tokens) for state in states]
            _append(sides.fit, [state[~held_out] for state in chosen])
            _append(sides.test, [state[held_out] for state in chosen])


def along(captured: Captured, run: list[Place], stream: str) -> list[torch.Tensor]:
    """The stream before the first block and after each one, up to the first block that does not
    return it (SD3's last)."""
    states = []
    for state in (captured.inputs[run[0]], *(captured.outputs[place] for place in run)):
        if stream not in state:
            break
        states.append(state[stream])
    return states


def evenly(state: torch.Tensor, tokens: int) -> torch.Tensor:
    """Evenly spaced tokens of a state, on the CPU: (B, .., D) -> (B, tokens, D)."""
    flat = state.flatten(1, -2)  # (B, N, D)
    count = flat.shape[1]
    chosen = torch.linspace(0, count - 1, min(tokens, count)).round().long()
    return flat[:, chosen.to(flat.device)].to("cpu", torch.float32)


def _append(side: list[list[torch.Tensor]], states: list[torch.Tensor]) -> None:
    """Add one call's states (b, tokens, D) to the lists of each point of the stack."""
    while len(side) < len(states):
        side.append([])
    for parts, state in zip(side, states, strict=False):
        parts.append(state.flatten(0, 1))  # (b * tokens, D)


# --- probes ---------------------------------------------------------------------------------------


def span_rows(path: str, streams: Iterable[States]) -> list[Row]:
    """Rows of every span of one stack: the mean over its streams."""
    scores: dict[tuple[int, int], list[float]] = {}
    for states in streams:
        for first, last, value in span_scores(states):
            scores.setdefault((first, last), []).append(value)
    return [
        Row(stack=path, block=first, last=last, edit="span", score=sum(values) / len(values))
        for (first, last), values in scores.items()
    ]


def span_scores(states: States, ridge: float = RIDGE) -> Iterator[tuple[int, int, float]]:
    """(u, k, CKA) of every span of one stream."""
    width = states.fit[0][0].shape[-1]
    exact = torch.float64 if width <= WIDEST_EXACT else torch.float32
    fit = [torch.cat(parts).to(exact) for parts in states.fit]
    test = [torch.cat(parts).to(exact) for parts in states.test]
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
    mean_input = inputs.mean(0)
    mean_target = targets.mean(0)
    centred = inputs - mean_input
    square = centred.T @ centred  # (D, D)
    square.diagonal().add_(ridge * square.diagonal().mean() + torch.finfo(square.dtype).tiny)
    weight = torch.linalg.solve(square, centred.T @ (targets - mean_target))
    return weight, mean_target - mean_input @ weight


def linear_cka(one: torch.Tensor, other: torch.Tensor) -> float:
    """Linear CKA of (n, D) and (n, E), features centred: ||X'Y||^2 / (||X'X|| ||Y'Y||). 1 = alike
    up to rotation and scale.
    """
    x = one - one.mean(0)
    y = other - other.mean(0)
    if len(x) < x.shape[1]:  # the same through the smaller (n, n) products
        a = x @ x.T
        b = y @ y.T
        value = (a * b).sum() / (a.norm() * b.norm())
    else:
        value = (x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    return float(value.nan_to_num(0.0).clamp(0, 1))
