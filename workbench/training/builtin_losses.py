"""The built-in loss terms: feature, output, task (rows of loss_table), and their arithmetic.

Where a batch becomes a loss: `batch_loss.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from ..models.blocks import State
from ..records import Loss
from .loss_table import LossTerm
from .targets import TEXT_STREAM

SumOverProcesses = Callable[[torch.Tensor], torch.Tensor]  # of a small tensor; same shape


@dataclass(frozen=True)
class SpanStates:
    """What a term of spans reads: a student block's output and what it must be."""

    student: State  # stream name -> (B, N, D)
    teacher: State
    streams: tuple[str, ...]  # those that count
    text_mask: torch.Tensor | None = None  # (B, T), true at real text tokens
    add: SumOverProcesses | None = None  # None in a single process


@dataclass(frozen=True)
class Predictions:
    """What a term of predictions reads; all shaped like the latents, (B, N, C) or (B, C, H, W)."""

    student: torch.Tensor
    teacher: torch.Tensor | None  # where the term's row asks for it; guided if the stage says so
    velocity: torch.Tensor  # what the model was trained to predict
    add: SumOverProcesses | None = None


def feature(states: SpanStates, loss: Loss) -> torch.Tensor:
    """Mean, or sum, over a block's streams of their distances; a scalar."""
    distances = []
    for name in states.streams:
        if name not in states.student or name not in states.teacher:
            continue
        value = states.student[name]
        mask = states.text_mask
        if name != TEXT_STREAM or mask is None or value.shape[1] != mask.shape[1]:
            mask = None
        distances.append(distance(value, states.teacher[name], loss, mask, states.add))
    return reduced(distances, loss)


def output(predictions: Predictions, loss: Loss) -> torch.Tensor:
    assert predictions.teacher is not None
    return distance(predictions.student, predictions.teacher, loss, add=predictions.add)


def task(predictions: Predictions, loss: Loss) -> torch.Tensor:
    return distance(predictions.student, predictions.velocity, loss, add=predictions.add)


FEATURE = LossTerm("A student block's states against the teacher's.", "spans", feature)
OUTPUT = LossTerm("The student's prediction against the teacher's.", "prediction", output, True)
TASK = LossTerm("The student's prediction against the truth.", "prediction", task)


# --- arithmetic -----------------------------------------------------------------------------------


def distance(
    value: torch.Tensor,
    target: torch.Tensor,
    loss: Loss,
    mask: torch.Tensor | None = None,
    add: SumOverProcesses | None = None,
) -> torch.Tensor:
    """How far `value` is from `target`, both (B, N, D), as `loss.form` says; a scalar.

    mask: (B, N), true at tokens that count. add: the result is this process's share of the
    distance over all processes' samples.
    """
    value = value.float()
    target = target.float()
    if mask is not None:
        value = value[mask]  # (real tokens, D)
        target = target[mask]
    if loss.form == "unit":
        between = normalize(value, dim=-1) - normalize(target, dim=-1)
        return share_of_mean(between.square().sum(-1), add)
    errors = (value - target).square()
    powers = target.square()
    if loss.mask_sigma is not None:
        ordinary = is_ordinary(target, loss.mask_sigma)
        errors = errors[ordinary]
        powers = powers[ordinary]
    if loss.form == "plain":
        return share_of_mean(errors, add)
    if add is None:
        return errors.mean() / powers.mean().clamp_min(1e-12)
    power, count = add(torch.stack([powers.sum(), powers.new_tensor(float(powers.numel()))]))
    return errors.sum() / power.clamp_min(1e-12 * count)


def share_of_mean(values: torch.Tensor, add: SumOverProcesses | None) -> torch.Tensor:
    """This process's share of the mean of all processes' values; alone, the mean."""
    if add is None:
        return values.mean()
    count = add(values.new_tensor(float(values.numel())))
    return values.sum() / count.clamp_min(1)


def reduced(values: list[torch.Tensor], loss: Loss) -> torch.Tensor:
    """Mean or sum of scalars, as `loss.reduction` says."""
    stacked = torch.stack(values)
    return stacked.sum() if loss.reduction == "sum" else stacked.mean()


def is_ordinary(state: torch.Tensor, sigmas: float) -> torch.Tensor:
    """Where a state (.., D) lies within `sigmas` standard deviations of its token's mean.

    What does not is a massive activation. TinyFusion (arXiv 2412.01199) takes the deviation within
    the whole state; within a token is ours: it depends neither on padding nor on what else is in
    the batch. One value among D lies at most sqrt(D - 1) deviations out, so `sigmas` must be below
    that.
    """
    mean = state.mean(-1, keepdim=True)
    deviation = state.std(-1, keepdim=True)
    return (state - mean).abs() <= sigmas * deviation
