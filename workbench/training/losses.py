"""The losses of distillation: what the teacher says at each span, and how far a student is from it.

feature: a student block against the teacher's state at the end of its span, over its streams.
output: the student's velocity against the teacher's. task: the student's velocity against noise -
x0 (flow matching).
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..families import StackRow
from ..models import blocks_of, family_of
from ..models.blocks import Forward, Place, State, all_blocks, capture, forwards, streams_out
from ..records import Loss, Plan, Stage
from . import Batch

TEXT_STREAM = "encoder_hidden_states"


@dataclass(frozen=True)
class Target:
    """A student block, the teacher block whose input feeds it (teacher-fed) and the one whose
    output it must produce.
    """

    place: Place
    fed: Place
    goal: Place
    streams: tuple[str, ...]  # that count: the text of the last dual block is read by nobody
    label: str


def targets(teacher: nn.Module, plan: Plan, stage: Stage, places: Sequence[Place]) -> list[Target]:
    """The targets of the student blocks at `places`, in the order of the model."""
    out = []
    for path, spans in plan.stacks.items():
        row, depth = family_of(teacher).stack(path), len(blocks_of(teacher)[path])
        for index, span in enumerate(spans):
            if (path, index) not in places:
                continue
            own = span.source[0]
            first, last = (span.first, span.last) if stage.target == "span-end" else (own, own)
            label = f"span {index} (teacher blocks {span.first}-{span.last} of {path})"
            out.append(
                Target(
                    (path, index),
                    (path, first),
                    (path, last),
                    streams_read(row, last, depth),
                    label,
                )
            )
    return out


def streams_read(row: StackRow, last: int, depth: int) -> tuple[str, ...]:
    """What is read of the streams that block `last` of a stack returns: nobody reads the last dual
    block's text.
    """
    dead = last == depth - 1 and any(part.last_only for part in row.parts.values())
    return tuple(name for name in row.returns if not (dead and name == TEXT_STREAM))


# --- the teacher's forward ------------------------------------------------------------------------

Arguments = dict[str, Any]  # of a block's forward
Each = Callable[[Target, Arguments, State], None]
Add = Callable[[torch.Tensor], torch.Tensor]  # sums a small tensor over the processes


@dataclass
class Seen:
    """One forward of the teacher: the states after the goals, and its answer."""

    states: dict[Place, State] = field(default_factory=dict)
    prediction: torch.Tensor | None = None


class Runs(Protocol):
    """What a model is run on: a batch, or a recorded call."""

    def predict(self, transformer: nn.Module, /) -> torch.Tensor: ...


class _Enough(Exception):
    """Ends a forward: no block after this one is needed."""


@torch.no_grad()
def watch(
    model: nn.Module,
    batch: Runs,
    wanted: Sequence[Target],
    *,
    predict: bool = False,
    each: Each | None = None,
) -> Seen:
    """Run a model once and see what the targets need; without `predict` it stops after the last
    goal.

    each: called as soon as the model has passed a target's goal, with the arguments that its block
    `fed` was given and the state after the goal; neither is kept longer than targets need it, so
    that of a plan's spans no more than one's are alive. Without it the goals' states are kept.

    no_grad and not inference_mode: autograd cannot save inference tensors, and the student's blocks
    take these as input.
    """
    seen = Seen()
    calls: dict[Place, Arguments] = {}
    # how many targets still need what this block was given
    fed = Counter(t.fed for t in wanted) if each else Counter()
    goals: dict[Place, list[Target]] = {}
    for target in wanted:
        goals.setdefault(target.goal, []).append(target)
    blocks = all_blocks(model)
    last = max((i for i, b in enumerate(blocks) if b.place in goals), default=-1)
    inside = False  # `each` may run a block of this very model

    def passed(place: Place, state: State) -> None:
        nonlocal inside
        if each is None:
            seen.states[place] = state
            return
        inside = True
        try:
            for target in goals[place]:
                fed[target.fed] -= 1
                each(target, calls[target.fed] if fed[target.fed] else calls.pop(target.fed), state)
        finally:
            inside = False

    def change(place: Place, row: StackRow, ends: bool) -> Callable[[Forward], Forward]:
        def wrap(old: Forward) -> Forward:
            signature = inspect.signature(old)

            def new(*args: Any, **kwargs: Any) -> Any:
                if inside:
                    return old(*args, **kwargs)
                if place in fed:
                    calls[place] = dict(signature.bind(*args, **kwargs).arguments)
                output = old(*args, **kwargs)
                if place in goals:
                    passed(place, streams_out(row, output))
                if ends:
                    raise _Enough
                return output

            return new

        return wrap

    if last < 0 and not predict:
        return seen
    changes = [
        (b.module, change(b.place, b.row, not predict and i == last))
        for i, b in enumerate(blocks)
        if b.place in {*fed, *goals}
    ]
    with forwards(changes), suppress(_Enough):
        seen.prediction = batch.predict(model)
    return seen


# --- losses ---------------------------------------------------------------------------------------


def distance(
    value: torch.Tensor,
    target: torch.Tensor,
    loss: Loss,
    mask: torch.Tensor | None = None,
    add: Add | None = None,
) -> torch.Tensor:
    """Mean squared error, over real tokens where a (B, T) mask is given; `normalised`: over the
    target's mean square.

    add: this process's share of the mean over all processes' samples, so that the shares add up to
    the loss.
    """
    value, target = value.float(), target.float()  # (B, N, D)
    error, power = (value - target).square(), target.square()
    if mask is not None:
        target, error, power = target[mask], error[mask], power[mask]
    if loss.mask_sigma is not None:
        keep = ordinary(target, loss.mask_sigma)
        error, power = error[keep], power[keep]
    if add is not None:
        total = add(torch.stack([power.sum(), power.new_tensor(float(power.numel()))]))
        return error.sum() / (
            total[0].clamp_min(1e-12 * total[1])
            if loss.form == "normalised"
            else total[1].clamp_min(1)
        )
    return (
        error.mean() / power.mean().clamp_min(1e-12) if loss.form == "normalised" else error.mean()
    )


def ordinary(state: torch.Tensor, sigmas: float) -> torch.Tensor:
    """Where a state (.., D) is no massive activation: within `sigmas` standard deviations of its
    token's mean.

    TinyFusion (arXiv 2412.01199) masks by the deviation within the whole state; within a token is
    ours: it depends neither on padding nor on what else is in the batch. One value among D lies at
    most sqrt(D - 1) deviations out, so `sigmas` must be below that.
    """
    mean, deviation = state.mean(-1, keepdim=True), state.std(-1, keepdim=True)
    return (state - mean).abs() <= sigmas * deviation


def feature(
    state: State,
    goal: State,
    target: Target,
    loss: Loss,
    mask: torch.Tensor | None,
    add: Add | None = None,
) -> torch.Tensor:
    """Mean over a block's streams."""
    parts = []
    for name in (name for name in target.streams if name in goal and name in state):
        text = name == TEXT_STREAM and mask is not None and state[name].shape[1] == mask.shape[1]
        parts.append(distance(state[name], goal[name], loss, mask if text else None, add))
    return torch.stack(parts).mean()


@dataclass
class BySpan:
    """Runs single student blocks, each forward with its backward, so that one span's activations
    are alive at a time.

    The arguments come from the teacher (teacher-fed) or from the student's own forward; no gradient
    passes between blocks. `values` holds the loss of each span afterwards; `backward` gets them
    divided by their number, and weighted.
    """

    student: nn.Module
    wanted: Sequence[Target]
    loss: Loss
    backward: Callable[[torch.Tensor], None]
    # of a block's forward: precision, attention
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    add: Add | None = None
    graph: bool = True  # else it only measures

    def __call__(self, teacher: nn.Module, batch: Batch, *, feed: bool) -> list[float]:
        """One forward of the teacher and, unless it feeds the blocks, one of the student."""
        self.values: dict[Place, float] = {}
        if feed:
            watch(
                teacher,
                batch,
                self.wanted,
                each=lambda target, call, goal: self.span(target, call, goal, batch),
            )
        else:
            seen = watch(teacher, batch, self.wanted)
            own = {target.place: target for target in self.wanted}
            mirror = [
                replace(target, fed=target.place, goal=target.place) for target in self.wanted
            ]
            watch(
                self.student,
                batch,
                mirror,
                each=lambda t, call, state: self.span(
                    own[t.place], call, seen.states[own[t.place].goal], batch
                ),
            )
        return [self.values[target.place] for target in self.wanted]

    def span(self, target: Target, call: Arguments, goal: State, batch: Batch) -> None:
        path, index = target.place
        row, block = family_of(self.student).stack(path), blocks_of(self.student)[path][index]
        with torch.set_grad_enabled(self.graph):
            with self.context():
                state = streams_out(row, block(**call))
                value = feature(state, goal, target, self.loss, batch.text_mask, self.add)
            if self.graph:
                self.backward(value * (self.loss.weight / len(self.wanted)))
        self.values[target.place] = float(value.detach())


def end_to_end(
    student: nn.Module,
    batch: Batch,
    seen: Seen,
    wanted: Sequence[Target],
    losses: Mapping[str, Loss],
    backward: Callable[[torch.Tensor], None],
    add: Add | None = None,
) -> tuple[dict[str, float], list[float]]:
    """The student on its own states: unweighted loss parts, and the feature loss of each span."""
    with capture(
        student, [t.place for t in wanted] if "feature" in losses else [], detach=False
    ) as held:
        prediction = batch.predict(student)
    parts: dict[str, torch.Tensor] = {}
    spans: list[torch.Tensor] = []
    if "feature" in losses:
        spans = [
            feature(
                held.outputs[t.place],
                seen.states[t.goal],
                t,
                losses["feature"],
                batch.text_mask,
                add,
            )
            for t in wanted
        ]
        parts["feature"] = torch.stack(spans).mean()
    if "output" in losses:
        assert seen.prediction is not None
        parts["output"] = distance(prediction, seen.prediction, losses["output"], add=add)
    if "task" in losses:
        parts["task"] = distance(prediction, batch.velocity, losses["task"], add=add)
    backward(torch.stack([value * losses[name].weight for name, value in parts.items()]).sum())
    return {name: float(value.detach()) for name, value in parts.items()}, [
        float(value.detach()) for value in spans
    ]


def fast_attention(on: bool) -> AbstractContextManager[Any]:
    """Attention by plain matrix products. In bfloat16 on a CPU its backward beats the fused one's:
    a whole step took 30 % less.
    """
    return sdpa_kernel(SDPBackend.MATH) if on else nullcontext()
