"""What is looked at: a teacher, one of its maps, how its timesteps count. The app and the notebook
draw the same through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .. import charts, plans
from ..records import BadInput, SensitivityMap, Span, Teacher
from .maps import shape_of

GIVEN = "given weights"
Weighting = str | dict[float, float]


@dataclass(frozen=True)
class Look:
    teacher: Teacher
    sensitivity: SensitivityMap | None
    weighting: Weighting
    name: str  # of the weighting

    @classmethod
    def of(
        cls,
        teacher: Teacher,
        sensitivity: SensitivityMap | None,
        weighting: Weighting = "normalised",
    ) -> Look:
        """`weighting`: a name of plans.WEIGHTINGS, or timestep -> weight."""
        return cls(
            teacher, sensitivity, weighting, weighting if isinstance(weighting, str) else GIVEN
        )

    @property
    def edits(self) -> list[str]:
        return self.sensitivity.edits if self.sensitivity else []

    @cached_property
    def weights(self) -> dict[str, dict[float | None, plans.TimestepWeight]]:
        """Edit -> how its timesteps count."""
        return weights_of(self.sensitivity, self.weighting)

    @cached_property
    def shared(self) -> dict[str, dict[float | None, plans.TimestepWeight]]:
        """The same weights for all edits, so that their scores can stand side by side: `normalised`
        divides by `drop`'s means.
        """
        if self.name != "normalised" or not self.weights:
            return self.weights
        common = self.weights.get("drop") or next(iter(self.weights.values()))
        return {
            edit: {time: common.get(time, own) for time, own in times.items()}
            for edit, times in self.weights.items()
        }

    def scores(self, edit: str) -> dict[tuple[str, int], float]:
        """Edit -> (stack, block) -> score over timesteps."""
        return plans.block_scores(self.sensitivity, edit, self.counted) if self.sensitivity else {}

    @property
    def counted(self) -> Weighting:
        """The weighting, where there are timesteps to weigh."""
        return self.weighting if self.timed else "uniform"

    @property
    def timed(self) -> bool:
        return self.sensitivity is not None and shape_of(self.sensitivity) == "timesteps"

    @property
    def told(self) -> str:
        """The weighting as charts name it."""
        return self.name if self.timed else "all"

    def at(self, sensitivity: SensitivityMap) -> Look:
        """The same weighting over another map."""
        return Look(self.teacher, sensitivity, self.weighting, self.name)


def weights_of(
    sensitivity: SensitivityMap | None, weighting: Weighting
) -> dict[str, dict[float | None, plans.TimestepWeight]]:
    if sensitivity is None or shape_of(sensitivity) == "spans":
        return {}
    counted = weighting if shape_of(sensitivity) == "timesteps" else "uniform"
    return {edit: plans.timestep_weights(sensitivity, edit, counted) for edit in sensitivity.edits}


def given_weights(text: Any, timesteps: list[float]) -> dict[float, float]:
    """`1000=1, 500=0.5, 0=0`: weights at some timesteps, straight lines between them, level beyond
    the ends.
    """
    points = plans.weight_points(str(text or ""))
    return {time: plans.interpolated(points, time) for time in timesteps}


# --- charts of it ---------------------------------------------------------------------------------


def map_chart(
    look: Look,
    edit: str = "",
    *,
    log: bool | None = None,
    plan: dict[str, charts.Rows] | None = None,
    **more: Any,
) -> Any:
    """The map with every edit, and the plan's rows beneath where given; on the scale that suits it
    unless told.
    """
    sensitivity = look.sensitivity
    if sensitivity is None:
        return charts.sensitivity_chart(look.teacher, [], [], [], plan, **more)
    how = measures(look)
    metric = "sensitivity" if sensitivity.metric == "prediction" else sensitivity.metric
    return charts.sensitivity_chart(
        look.teacher,
        charts.sensitivity_rows(sensitivity, look.teacher),
        how["bars"],
        how["weights"],
        plan,
        edit=default_edit(look, edit),
        log=default_colour(look) == "log" if log is None else log,
        unit=sensitivity.unit,
        direction=sensitivity.direction,
        metric=metric,
        **more,
    )


def measures(look: Look) -> dict[str, Any]:
    """What follows the weighting: bars, weights and the bars' scales."""
    if look.sensitivity is None:
        return {"bars": [], "weights": [], "scales": {}}
    bars = charts.bar_rows(look.sensitivity, look.teacher, look.weights)
    return {
        "bars": bars,
        "weights": charts.weight_rows(look.weights) if look.timed else [],
        "scales": charts.bar_scales(bars),
    }


def default_edit(look: Look, wished: str | None) -> str:
    return (
        wished
        if wished in look.edits
        else "drop"
        if "drop" in look.edits or not look.edits
        else look.edits[0]
    )


def default_colour(look: Look) -> str:
    """Log, unless every tenth score has no place on a log scale."""
    rows = look.sensitivity.rows if look.sensitivity else []
    return "log" if 10 * sum(row.score <= 0 for row in rows) <= len(rows) else "linear"


# --- looking closer -------------------------------------------------------------------------------


def block_chart(look: Look, path: str, block: int, *, log: bool = True) -> Any | None:
    """A block's scores over the timesteps under every edit; None where the map has no timesteps."""
    rows = charts.profile_rows(look.sensitivity, path, block) if look.sensitivity else []
    return (
        charts.profile_chart(rows, log=log, unit=look.sensitivity.unit if look.sensitivity else "")
        if rows
        else None
    )


def part_rows(look: Look, path: str, block: int) -> charts.Rows:
    """What dropping each part of a block scores, the whole block first."""
    if look.sensitivity is None:
        return []
    bars = charts.bar_rows(look.sensitivity, look.teacher, look.shared)
    return charts.part_rows(
        bars, charts.offsets(look.teacher)[path] + block, part_sizes(look.teacher, path, block)
    )


def part_chart(look: Look, path: str, block: int) -> Any | None:
    rows = part_rows(look, path, block)
    return charts.part_chart(rows, weighting=look.told) if rows else None


def part_sizes(teacher: Teacher, path: str, block: int) -> dict[str, int]:
    """Part -> parameters the block saves without it."""
    stack, row = teacher.stack(path), plans.family_of(teacher).stack(path)
    whole = stack.block_parameters(block)
    out = {"whole block": whole}
    for name, part in row.fitted(stack.tensors(block)).parts.items():
        if not part.last_only or block == stack.depth - 1:
            out[name] = whole - plans.span_parameters(
                Span(blocks=(block, block), drop=(name,)), stack, row
            )
    return out


def edits_chart(look: Look, *, log: bool = True, **more: Any) -> Any | None:
    """Every edit of every block, over all timesteps; None where there is one edit."""
    rows = (
        charts.breakdown_rows(look.sensitivity, look.teacher, look.shared)
        if look.sensitivity
        else []
    )
    several = len({row["edit"] for row in rows}) > 1
    return (
        charts.breakdown_chart(look.teacher, rows, log=log, weighting=look.told, **more)
        if several
        else None
    )


def difference_rows(one: Look, two: Look, edits: tuple[str, str]) -> charts.Rows:
    """Where the first map under its edit scores higher than the second under its own
    (`charts.difference_rows`).
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
    return charts.difference_rows(
        one.sensitivity,
        two.sensitivity,
        one.teacher,
        edits,
        (one.scores(edits[0]), two.scores(edits[1])),
    )


def correlation_chart(looks: Mapping[str, Look], most: int = 14) -> Any | None:
    """Rank correlation of the orders of blocks that all edits of these maps give (the first
    `most`); None for fewer than two.
    """
    several = len(looks) > 1
    orders = {
        f"{name}: {edit}" if several else edit: look.scores(edit)
        for name, look in looks.items()
        for edit in look.edits
    }
    rows = charts.correlation_rows(dict(list(orders.items())[:most]))
    return charts.correlation_chart(rows) if len(rows) > 1 else None
