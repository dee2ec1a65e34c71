"""What trains in a stage: which blocks, which parameters, and how far they may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from ..models import blocks_of
from ..models.blocks import Place
from ..records import BadInput, Plan, Span, Stage
from ..training.optim import block_factors

# (stack, teacher block) -> sensitivity, higher = keep; see plans.block_scores
Scores = Mapping[Place, float]


def student_places(plan: Plan) -> list[Place]:
    """(stack, number) of every student block, in the order of the model."""
    places = []
    for path, spans in plan.stacks.items():
        places += [(path, index) for index in range(len(spans))]
    return places


def trained_blocks(student: nn.Module, plan: Plan, stage: Stage) -> list[Place]:
    """Student blocks that train, in the order of the model. Raises BadInput for unknown ones."""
    places: list[Place] = []
    for path, blocks in blocks_of(student).items():
        places += [(path, index) for index in range(len(blocks))]
    return chosen_blocks(places, plan, stage)


def chosen_blocks(places: Sequence[Place], plan: Plan, stage: Stage) -> list[Place]:
    """Those of the student blocks `places` that train."""
    spans = {place: plan.stacks[place[0]][place[1]] for place in places}
    if isinstance(stage.train, dict):
        return listed_blocks(places, stage, stage.train)
    if stage.train == "merged":
        return [place for place in places if not spans[place].plain]
    if stage.train == "single":
        return [place for place in places if spans[place].stream == "single"]
    if stage.train == "after-first-cut":
        return list(places[first_after_cut([spans[place] for place in places]) :])
    return list(places)


def listed_blocks(
    places: Sequence[Place], stage: Stage, lists: Mapping[str, Sequence[int]]
) -> list[Place]:
    listed = set()
    for path, indices in lists.items():
        listed |= {(path, index) for index in indices}
    unknown = listed - set(places)
    if unknown:
        raise BadInput(
            f"stage {stage.name!r} trains {min(unknown)}",
            "blocks of the student",
            "correct its list",
        )
    return [place for place in places if place in listed]


def first_after_cut(spans: Sequence[Span]) -> int:
    """Number of the first block that trains under `after-first-cut`; len(spans) where none does.

    PWP (HierarchicalPrune, arXiv 2508.04663) freezes everything up to the first removed block. A
    kept block before it stays frozen, unless its own weights are no longer the teacher's: averaged,
    scaled, made single-stream or without a part (ours; the paper has no such blocks).
    """
    for number, span in enumerate(spans):
        averaged = len(span.source) > 1
        if averaged or span.gain != 1 or span.stream or span.drop:
            return number
        if len(span) > 1:
            removed_before_own = span.source[0] > span.first
            return number if removed_before_own else number + 1
    return len(spans)


def trained_parameters(
    student: nn.Module, stage: Stage, places: Sequence[Place], order: Sequence[str] = ()
) -> dict[str, nn.Parameter]:
    """Parameters that train, by name.

    Those of the blocks at `places`; with `all` also everything outside the stacks; with
    `after-first-cut` what the forward first uses after the cut. order: names of the parameters as
    the forward uses them (forward_order.parameters_in_order), for `after-first-cut`.
    """
    in_stacks = tuple(f"{path}." for path in blocks_of(student))
    in_blocks = tuple(f"{path}.{index}." for path, index in places)
    outside: set[str] = set()
    if stage.train == "all":
        outside = {name for name, _ in student.named_parameters() if not name.startswith(in_stacks)}
    elif stage.train == "after-first-cut":
        outside = used_after_cut(order, in_stacks, in_blocks)
    return {
        name: p
        for name, p in student.named_parameters()
        if name in outside or name.startswith(in_blocks)
    }


def used_after_cut(
    order: Sequence[str], in_stacks: tuple[str, ...], in_blocks: tuple[str, ...]
) -> set[str]:
    """Names outside the stacks that are first used after the first block that trains; where none
    trains, after the last block.
    """
    trained = [number for number, name in enumerate(order) if name.startswith(in_blocks)]
    stacked = [number for number, name in enumerate(order) if name.startswith(in_stacks)]
    cut = min(trained) if trained else max(stacked, default=-1)
    return {name for name in order[cut + 1 :] if not name.startswith(in_stacks)}


def parameter_factors(
    plan: Plan, stage: Stage, places: Sequence[Place], scores: Scores | None
) -> dict[str, float]:
    """Prefix of a block's parameters -> factor on their steps; empty where the stage has no scale.

    A changed block moves in full, else it could not recover. Raises BadInput where the stage scales
    by sensitivity and there are no scores.
    """
    if stage.scale == "none":
        return {}
    if not scores:
        raise BadInput(
            f"stage {stage.name!r} scales by sensitivity, and there is no map",
            "a sensitivity map",
            "pass --sensitivity map.json",
        )
    sums = {}
    changed = []
    for path, index in places:
        span = plan.stacks[path][index]
        prefix = f"{path}.{index}."
        sums[prefix] = sum(scores.get((path, block), 0.0) for block in span.source)
        if not span.plain:
            changed.append(prefix)
    return block_factors(sums, stage.scale, changed)
