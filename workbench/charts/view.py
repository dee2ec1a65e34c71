"""The view that app and notebooks share: a teacher, one of its maps, and the weighting of timesteps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt

from .. import plans
from ..records import BadInput, SensitivityMap, Span, Teacher
from . import map_difference, one_block
from .axis import WIDTH, Rows, offsets
from .heatmap import Labels, sensitivity_chart
from .map_rows import Weights, bar_rows, bar_scales, sensitivity_rows, weight_rows
from .shapes import shape_of

GIVEN = "given weights"
Weighting = str | dict[float, float]
MOST_ORDERS = 14  # of a correlation chart


@dataclass(frozen=True)
class Look:
    """A teacher, one of its maps, and how timesteps count. name: of the weighting."""

    teacher: Teacher
    sensitivity: SensitivityMap | None
    weighting: Weighting
    name: str

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        sensitivity: SensitivityMap | None,
        weighting: Weighting = "normalised",
    ) -> Look:
        """`weighting`: a name of plans.WEIGHTINGS, or timestep -> weight."""
        name = weighting if isinstance(weighting, str) else GIVEN
        return cls(teacher, sensitivity, weighting, name)

    @property
    def edits(self) -> list[str]:
        return self.sensitivity.edits if self.sensitivity else []

    @cached_property
    def weights(self) -> dict[str, dict[float | None, plans.TimestepWeight]]:
        """Edit -> how its timesteps count."""
        return weights_of(self.sensitivity, self.weighting)

    @cached_property
    def shared(self) -> Weights:
        """The same weights for all edits, so that their scores can stand side by side: `normalised`
        divides by `drop`'s means.
        """
        if self.name != "normalised" or not self.weights:
            return self.weights
        common = self.weights.get("drop") or next(iter(self.weights.values()))
        shared = {}
        for edit, times in self.weights.items():
            shared[edit] = {**times, **{t: common[t] for t in times.keys() & common.keys()}}
        return shared

    def scores(self, edit: str) -> dict[tuple[str, int], float]:
        """(stack, block) -> score of an edit over timesteps."""
        if self.sensitivity is None:
            return {}
        weighting = self.weighting if self.has_timesteps else "uniform"
        return plans.block_scores(self.sensitivity, edit, weighting)

    @property
    def has_timesteps(self) -> bool:
        return self.sensitivity is not None and shape_of(self.sensitivity) == "timesteps"

    @property
    def weighting_title(self) -> str:
        """The weighting as charts name it."""
        return self.name if self.has_timesteps else "all"

    @property
    def unit(self) -> str:
        return self.sensitivity.unit if self.sensitivity else ""

    def at(self, sensitivity: SensitivityMap) -> Look:
        """The same weighting over another map."""
        return Look(self.teacher, sensitivity, self.weighting, self.name)


def weights_of(
    sensitivity: SensitivityMap | None, weighting: Weighting
) -> dict[str, dict[float | None, plans.TimestepWeight]]:
    """Edit -> timestep -> how it counts; nothing for maps of spans, which have no bars."""
    if sensitivity is None or shape_of(sensitivity) == "spans":
        return {}
    if shape_of(sensitivity) == "edits":
        weighting = "uniform"  # one score per edit and block: nothing to weigh
    return {
        edit: plans.timestep_weights(sensitivity, edit, weighting) for edit in sensitivity.edits
    }


def given_weights(text: Any, timesteps: list[float]) -> dict[float, float]:
    """`1000=1, 500=0.5, 0=0`: weights at some timesteps, straight lines between them, level beyond
    the ends.
    """
    points = plans.weight_points(str(text or ""))
    return {time: plans.interpolated(points, time) for time in timesteps}


def look_at(
    sensitivity: SensitivityMap, teacher: Teacher, weighting: Weighting = "normalised"
) -> Look:
    """What `map_chart` draws of a map of this teacher."""
    return Look.of(teacher, sensitivity, weighting)


# --- the map --------------------------------------------------------------------------------------


def map_chart(
    look: Look,
    edit: str = "",
    *,
    log: bool | None = None,
    plan: dict[str, Rows] | None = None,
    toggles: bool = False,
    params: bool = False,
    width: int = WIDTH,
) -> alt.VConcatChart:
    """The map with every edit, and the plan's rows beneath where given. log: None is the scale that
    suits it; toggles, params: see `maps.sensitivity_chart`.
    """
    sensitivity = look.sensitivity
    if sensitivity is None:
        return sensitivity_chart(look.teacher, [], [], [], plan, width=width)
    if log is None:
        log = default_colour(look) == "log"
    measured = measures(look)
    metric = "sensitivity" if sensitivity.metric == "prediction" else sensitivity.metric
    return sensitivity_chart(
        look.teacher,
        sensitivity_rows(sensitivity, look.teacher),
        measured["bars"],
        measured["weights"],
        plan,
        edit=default_edit(look, edit),
        log=log,
        labels=Labels(metric, sensitivity.unit, sensitivity.direction),
        toggles=toggles,
        params=params,
        width=width,
    )


def measures(look: Look) -> dict[str, Any]:
    """What follows the weighting, as the browser takes it: bars, weights and the bars' scales."""
    if look.sensitivity is None:
        return {"bars": [], "weights": [], "scales": {}}
    bars = bar_rows(look.sensitivity, look.teacher, look.weights)
    return {
        "bars": bars,
        "weights": weight_rows(look.weights) if look.has_timesteps else [],
        "scales": bar_scales(bars),
    }


def default_edit(look: Look, edit: str | None) -> str:
    """That edit where the map has it; else `drop`, else the map's first."""
    if edit is not None and edit in look.edits:
        return edit
    if "drop" in look.edits or not look.edits:
        return "drop"
    return look.edits[0]


def default_colour(look: Look) -> str:
    """Log, unless every tenth score has no place on a log scale."""
    rows = look.sensitivity.rows if look.sensitivity else []
    not_positive = sum(row.score <= 0 for row in rows)
    return "log" if 10 * not_positive <= len(rows) else "linear"


# --- looking closer -------------------------------------------------------------------------------


def block_chart(look: Look, path: str, block: int, *, log: bool = True) -> alt.LayerChart | None:
    """A block's scores over the timesteps under every edit; None where the map has no timesteps."""
    if look.sensitivity is None:
        return None
    rows = one_block.profile_rows(look.sensitivity, path, block)
    return one_block.profile_chart(rows, log=log, unit=look.unit) if rows else None


def part_rows(look: Look, path: str, block: int) -> Rows:
    """What dropping each part of a block scores, the whole block first."""
    if look.sensitivity is None:
        return []
    bars = bar_rows(look.sensitivity, look.teacher, look.shared)
    at = offsets(look.teacher)[path] + block
    return one_block.part_rows(bars, at, part_sizes(look.teacher, path, block))


def part_chart(look: Look, path: str, block: int) -> alt.LayerChart | None:
    """The chart of `part_rows`; None where there are none."""
    rows = part_rows(look, path, block)
    return one_block.part_chart(rows, weighting=look.weighting_title) if rows else None


def part_sizes(teacher: Teacher, path: str, block: int) -> dict[str, int]:
    """Part -> parameters the block saves without it."""
    stack = teacher.stack(path)
    row = plans.family_of(teacher).stack(path)
    whole = stack.block_parameters(block)
    sizes = {one_block.WHOLE: whole}
    for name, part in row.fitted(stack.tensors(block)).parts.items():
        if not part.last_only or block == stack.depth - 1:
            span = Span(blocks=(block, block), drop=(name,))
            sizes[name] = whole - plans.span_parameters(span, stack, row)
    return sizes


def edits_chart(look: Look, *, log: bool = True, width: int = WIDTH) -> alt.VConcatChart | None:
    """Every edit of every block, over all timesteps; None where there is one edit."""
    if look.sensitivity is None:
        return None
    rows = one_block.breakdown_rows(look.sensitivity, look.teacher, look.shared)
    if len({row["edit"] for row in rows}) < 2:
        return None
    title = look.weighting_title
    return one_block.breakdown_chart(look.teacher, rows, log=log, weighting=title, width=width)


# --- two maps -------------------------------------------------------------------------------------


def difference_rows(one: Look, two: Look, edits: tuple[str, str]) -> Rows:
    """Where the first map under its edit scores higher than the second under its own
    (`map_difference.difference_rows`). Raises BadInput for an edit that a map does not have.
    """
    if one.sensitivity is None or two.sensitivity is None:
        raise BadInput(
            "a map is missing", "two maps of one teacher, or one map twice", "choose them"
        )
    for look, edit in zip((one, two), edits, strict=True):
        if edit not in look.edits:
            raise BadInput(
                f"the map has no edit {edit!r}", "one of " + ", ".join(look.edits), "choose one"
            )
    orders = (one.scores(edits[0]), two.scores(edits[1]))
    return map_difference.difference_rows(
        one.sensitivity, two.sensitivity, one.teacher, edits, orders
    )


def correlation_chart(looks: Mapping[str, Look], most: int = MOST_ORDERS) -> alt.LayerChart | None:
    """Rank correlation of the orders of blocks that all edits of these maps give (the first
    `most`); None for fewer than two.
    """
    orders: dict[str, map_difference.Order] = {}
    for name, look in looks.items():
        for edit in look.edits:
            title = f"{name}: {edit}" if len(looks) > 1 else edit
            if len(orders) < most:
                orders[title] = look.scores(edit)
    rows = map_difference.correlation_rows(orders)
    return map_difference.correlation_chart(rows) if len(rows) > 1 else None
