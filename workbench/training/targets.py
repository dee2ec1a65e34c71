"""What each student block is trained to produce: the teacher's state at the end of its span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ..families import StackRow
from ..models import blocks_of, family_of
from ..models.blocks import Place
from ..records import Plan, Span, Stage

TEXT_STREAM = "encoder_hidden_states"


@dataclass(frozen=True)
class Target:
    """A student block, and the teacher's blocks that it is trained by."""

    place: Place  # of the student block
    fed: Place  # the teacher block whose input a teacher-fed student block gets
    goal: Place  # the teacher block whose output it must produce
    streams: tuple[str, ...]  # those of the output that count
    label: str  # for error messages


def targets(teacher: nn.Module, plan: Plan, stage: Stage, places: Sequence[Place]) -> list[Target]:
    """The targets of the student blocks at `places`, in the order of the model.

    plan: spans of this teacher. stage.target decides between the span's end and the block that the
    weights come from.
    """
    chosen = set(places)
    out = []
    for path, spans in plan.stacks.items():
        row = family_of(teacher).stack(path)
        depth = len(blocks_of(teacher)[path])
        for index, span in enumerate(spans):
            if (path, index) in chosen:
                fed, goal = ends(span, stage)
                streams = streams_read(row, goal, depth)
                label = f"span {index} (teacher blocks {span.first}-{span.last} of {path})"
                out.append(Target((path, index), (path, fed), (path, goal), streams, label))
    return out


def ends(span: Span, stage: Stage) -> tuple[int, int]:
    """Teacher blocks: the one whose input is fed, and the one whose output is the goal."""
    if stage.target == "span-end":
        return span.first, span.last
    own = span.source[0]
    return own, own


def streams_read(row: StackRow, last: int, depth: int) -> tuple[str, ...]:
    """The streams of block `last`'s output that are read: not the last dual block's text."""
    unread = last == depth - 1 and any(part.last_only for part in row.parts.values())
    return tuple(name for name in row.returns if not (unread and name == TEXT_STREAM))
