"""What trains in a stage: which blocks, which parameters, and how far they may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..models import blocks_of
from ..models.blocks import Place
from ..records import BadInput, Plan, Stage
from ..training.optim import block_scale

# (stack, teacher block) -> sensitivity, higher = keep; see plans.block_scores
Scores = Mapping[Place, float]


def trained_blocks(student: nn.Module, plan: Plan, stage: Stage) -> list[Place]:
    """Student blocks that train, in the order of the model."""
    places = [
        (path, index) for path, blocks in blocks_of(student).items() for index in range(len(blocks))
    ]
    changed = {
        (path, index)
        for path, spans in plan.stacks.items()
        for index, span in enumerate(spans)
        if not span.plain
    }
    if isinstance(stage.train, dict):
        chosen = {(path, index) for path, indices in stage.train.items() for index in indices}
        if unknown := chosen - set(places):
            raise BadInput(
                f"stage {stage.name!r} trains {min(unknown)}",
                "blocks of the student",
                "correct its list",
            )
        return [place for place in places if place in chosen]
    if stage.train == "merged":
        return [place for place in places if place in changed]
    if stage.train == "single":
        return [
            (path, index) for path, index in places if plan.stacks[path][index].stream == "single"
        ]
    first = (
        min((places.index(place) for place in changed), default=len(places))
        if stage.train == "after-first-cut"
        else 0
    )
    return places[first:]


def trained_parameters(
    student: nn.Module, stage: Stage, places: Sequence[Place]
) -> dict[str, nn.Parameter]:
    """Parameters that train: those of the blocks, and, where the stage is no list of blocks, what
    comes after (or around) them.

    after-first-cut (PWP, HierarchicalPrune, arXiv 2508.04663): everything before the first changed
    block is frozen. "After" is the order in which the model registers its modules: embedders,
    stacks, output layers.
    """
    inside = tuple(f"{path}.{index}." for path, index in places)
    stacks = tuple(f"{path}." for path in blocks_of(student))
    named = dict(student.named_parameters())
    if isinstance(stage.train, dict) or stage.train in ("merged", "single"):
        return {name: p for name, p in named.items() if name.startswith(inside)} if inside else {}
    last = max((i for i, name in enumerate(named) if name.startswith(stacks)), default=-1)
    around = {
        name
        for i, name in enumerate(named)
        if not name.startswith(stacks) and (stage.train == "all" or i > last)
    }
    return {
        name: p
        for name, p in named.items()
        if name in around or (inside and name.startswith(inside))
    }


def parameter_scale(
    plan: Plan, stage: Stage, places: Sequence[Place], scores: Scores | None
) -> dict[str, float]:
    """Prefix of a block's parameters -> factor on their steps. A changed block moves in full, else
    it could not recover.
    """
    if stage.scale == "none":
        return {}
    if not scores:
        raise BadInput(
            f"stage {stage.name!r} scales by sensitivity, and there is no map",
            "a sensitivity map",
            "pass --sensitivity map.json",
        )
    spans = {place: plan.stacks[place[0]][place[1]] for place in places}
    sums = {
        f"{path}.{index}.": sum(scores.get((path, b), 0.0) for b in span.source)
        for (path, index), span in spans.items()
    }
    return block_scale(
        sums,
        stage.scale,
        [f"{path}.{index}." for (path, index), span in spans.items() if not span.plain],
    )
