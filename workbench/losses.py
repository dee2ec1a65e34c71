"""The losses of distillation: what the teacher says at each span, and how far a student is from it.

feature: a student block against the teacher's state at the end of its span, over its streams. output: the student's
velocity against the teacher's. task: the student's velocity against noise - x0 (flow matching).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .blocks import Forward, Place, State, all_blocks, capture, forwards, streams_out
from .data import Batch
from .families import StackRow
from .models import blocks_of, family_of
from .records import Loss, Plan, Stage

TEXT_STREAM = "encoder_hidden_states"


@dataclass(frozen=True)
class Target:
    """A student block, the teacher block whose input feeds it (teacher-fed) and the one whose output it must produce."""

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
            dead = last == depth - 1 and any(part.last_only for part in row.parts.values())
            streams = tuple(name for name in row.returns if not (dead and name == TEXT_STREAM))
            label = f"span {index} (teacher blocks {span.first}-{span.last} of {path})"
            out.append(Target((path, index), (path, first), (path, last), streams, label))
    return out


# --- the teacher's forward -----------------------------------------------------------------------------------------


@dataclass
class Seen:
    """One teacher forward: the arguments of the blocks that feed, the states after the goals, the velocity."""

    calls: dict[Place, dict[str, Any]] = field(default_factory=dict)
    states: dict[Place, State] = field(default_factory=dict)
    prediction: torch.Tensor | None = None


class _Enough(Exception):
    """Ends a forward: no block after this one is needed."""


@torch.no_grad()
def watch(teacher: nn.Module, batch: Batch, wanted: Sequence[Target], *, feed: bool, predict: bool) -> Seen:
    """Run the teacher once and keep what the targets need; without `predict` it stops after the last goal.

    no_grad and not inference_mode: autograd cannot save inference tensors, and the student's blocks take these as input.
    """
    seen = Seen()
    fed, goals = {t.fed for t in wanted} if feed else set(), {t.goal for t in wanted}
    blocks = all_blocks(teacher)
    last = max((i for i, b in enumerate(blocks) if b.place in goals), default=-1)

    def change(place: Place, row: StackRow, ends: bool) -> Callable[[Forward], Forward]:
        def wrap(old: Forward) -> Forward:
            signature = inspect.signature(old)

            def new(*args: Any, **kwargs: Any) -> Any:
                if place in fed:
                    seen.calls[place] = dict(signature.bind(*args, **kwargs).arguments)
                output = old(*args, **kwargs)
                if place in goals:
                    seen.states[place] = streams_out(row, output)
                if ends:
                    raise _Enough
                return output

            return new

        return wrap

    if last < 0 and not predict:
        return seen
    changes = [(b.module, change(b.place, b.row, not predict and i == last)) for i, b in enumerate(blocks) if b.place in fed | goals]
    with forwards(changes), suppress(_Enough):
        seen.prediction = batch.predict(teacher)
    return seen


def own_calls(student: nn.Module, batch: Batch, wanted: Sequence[Target]) -> dict[Place, dict[str, Any]]:
    """The arguments the student's own forward gives its blocks, without a graph."""
    own = [replace(target, fed=target.place, goal=target.place) for target in wanted]
    return watch(student, batch, own, feed=True, predict=False).calls


# --- losses --------------------------------------------------------------------------------------------------------


def distance(value: torch.Tensor, target: torch.Tensor, loss: Loss, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared error, over real tokens where a (B, T) mask is given; `normalised`: over the target's mean square."""
    value, target = value.float(), target.float()  # (B, N, D)
    error, power = (value - target).square(), target.square()
    if mask is not None:
        error, power = error[mask], power[mask]
    return error.mean() / power.mean().clamp_min(1e-12) if loss.form == "normalised" else error.mean()


def feature(state: State, goal: State, target: Target, loss: Loss, mask: torch.Tensor | None) -> torch.Tensor:
    """Mean over a block's streams."""
    parts = []
    for name in target.streams:
        text = name == TEXT_STREAM and mask is not None and state[name].shape[1] == mask.shape[1]
        parts.append(distance(state[name], goal[name], loss, mask if text else None))
    return torch.stack(parts).mean()


def by_span(student: nn.Module, batch: Batch, seen: Seen, wanted: Sequence[Target], calls: Mapping[Place, dict[str, Any]], loss: Loss,
            backward: Callable[[torch.Tensor], None]) -> list[float]:
    """Run each student block on the arguments in `calls`; backward span by span, so that one span's activations are alive.

    Returns the loss of each span; `backward` gets them divided by their number.
    """
    blocks, out = blocks_of(student), []
    for target in wanted:
        path, index = target.place
        row = family_of(student).stack(path)
        state = streams_out(row, blocks[path][index](**calls[target.place]))
        value = feature(state, seen.states[target.goal], target, loss, batch.text_mask)
        backward(value * (loss.weight / len(wanted)))
        out.append(float(value.detach()))
    return out


def end_to_end(student: nn.Module, batch: Batch, seen: Seen, wanted: Sequence[Target], losses: Mapping[str, Loss],
               backward: Callable[[torch.Tensor], None]) -> tuple[dict[str, float], list[float]]:
    """The student on its own states: unweighted loss parts, and the feature loss of each span."""
    with capture(student, [t.place for t in wanted] if "feature" in losses else [], detach=False) as held:
        prediction = batch.predict(student)
    parts: dict[str, torch.Tensor] = {}
    spans: list[torch.Tensor] = []
    if "feature" in losses:
        spans = [feature(held.outputs[t.place], seen.states[t.goal], t, losses["feature"], batch.text_mask) for t in wanted]
        parts["feature"] = torch.stack(spans).mean()
    if "output" in losses:
        assert seen.prediction is not None
        parts["output"] = distance(prediction, seen.prediction, losses["output"])
    if "task" in losses:
        parts["task"] = distance(prediction, batch.velocity, losses["task"])
    backward(torch.stack([value * losses[name].weight for name, value in parts.items()]).sum())
    return {name: float(value.detach()) for name, value in parts.items()}, [float(value.detach()) for value in spans]


def fast_attention(on: bool) -> AbstractContextManager[Any]:
    """Attention by plain matrix products. In bfloat16 on a CPU its backward beats the fused one's: a whole step took 30 % less."""
    return sdpa_kernel(SDPBackend.MATH) if on else nullcontext()
