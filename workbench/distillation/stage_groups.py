"""Stages that train a few blocks at a time, as stages of one group of blocks each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ..models.blocks import Place
from ..records import DistillSpec, Plan, Stage
from .trainable import chosen_blocks, student_places


def in_groups(spec: DistillSpec, plans: Mapping[str, Plan]) -> DistillSpec:
    """The spec with every stage of `blocks_at_once` as one stage per group, one after the other.

    All groups of a stage see the samples that the whole stage would, so that each block learns what
    it would beside the others. plans: the student's, by Stage.teacher.
    """
    if all(stage.blocks_at_once is None for stage in spec.stages):
        return spec
    stages: list[Stage] = []
    for number, stage in enumerate(spec.stages):
        own = stage.model_copy(update={"seed": spec.stage_seed(number), "blocks_at_once": None})
        if stage.blocks_at_once is None:
            stages.append(own)
            continue
        plan = plans[stage.teacher]
        places = chosen_blocks(student_places(plan), plan, stage)
        groups = groups_of(places, stage.blocks_at_once)
        for count, group in enumerate(groups, 1):
            changes = {"train": lists_of(group), "name": f"{stage.name} {count}/{len(groups)}"}
            stages.append(own.model_copy(update=changes))
    return spec.model_copy(update={"stages": stages})


def groups_of(places: Sequence[Place], size: int) -> list[Sequence[Place]]:
    """Groups of so many neighbours, the last one of what is left."""
    return [places[first : first + size] for first in range(0, len(places), size)]


def lists_of(places: Sequence[Place]) -> dict[str, list[int]]:
    """Blocks by stack, as a stage's `train` lists them."""
    lists: dict[str, list[int]] = defaultdict(list)
    for path, index in places:
        lists[path].append(index)
    return dict(lists)
