"""The settings of rules. Each is the field of that name of PlanSpec, which says what it means; rules
name the ones they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Self, get_args

from ..plans import Gain, parse_gain
from ..plans.text_stream import TextStream
from ..plans.weighting import Weighting
from ..records import BadInput, Init, Teacher
from ..specs import PlanSpec
from ..specs.values import PLAN_EDITS, split_names

COMMON = ("init", "gain", "protect", "single_from", "slim_from", "modulation_rank")


@dataclass(frozen=True)
class Settings:
    """The settings of a rule; None: as the rule decides. protect: stack -> blocks to keep alone."""

    init: Init | None = None
    gain: Gain | None = None
    protect: Mapping[str, frozenset[int]] = field(default_factory=dict)
    timestep_weight: Weighting | None = None
    single_from: float | None = None
    slim_from: float | None = None
    modulation_rank: int | Literal["auto"] | None = None
    parts: bool | None = None
    edits: tuple[str, ...] | None = None
    whole_text: int | None = None
    longest: int | None = None
    margin: float | None = None
    shortlist: int | None = None
    minutes: float | None = None
    tries: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Settings as people write them: a gain as text, edits with commas. None means unset.

        Raises BadInput for an unknown name or a value that no rule can take.
        """
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise BadInput(f"setting {name!r}", "one of " + ", ".join(names), "remove it")
        values = {name: value for name, value in given.items() if value is not None}
        if values.get("init") not in (None, *get_args(Init)):
            known = ", ".join(get_args(Init))
            raise BadInput(f"init {values['init']!r}", f"one of {known}", "choose one")
        if "gain" in values:
            values["gain"] = parse_gain(values["gain"])
        check_rank(values.get("modulation_rank"))
        if "edits" in values:
            values["edits"] = checked_edits(values["edits"])
        return cls(**values)

    @property
    def given(self) -> dict[str, Any]:
        """The settings that are set, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value not in (None, {})}

    @property
    def text_stream(self) -> TextStream:
        """What follows the rule in deep blocks."""
        return TextStream(self.single_from, self.slim_from)


def check_rank(rank: object) -> None:
    """Refuse a rank of modulation that is neither a positive number nor auto."""
    number = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    if rank is not None and rank != "auto" and not number:
        found = f"modulation_rank {rank!r}"
        raise BadInput(found, "1 or more, or auto", "change --modulation-rank")


def checked_edits(value: str | Sequence[str]) -> tuple[str, ...]:
    """Edits of measured rules, from a list or from text with commas. Raises BadInput."""
    edits = tuple(split_names(value))
    for edit in edits:
        if edit not in PLAN_EDITS:
            raise BadInput(f"edit {edit!r}", "some of " + ", ".join(PLAN_EDITS), "correct --edits")
    return edits


def settings_of(spec: PlanSpec, teacher: Teacher) -> dict[str, Any]:
    """The settings that a spec sets, as arguments of `proposing`."""
    names = [each.name for each in fields(Settings)]
    settings = {name: getattr(spec, name) for name in names if getattr(spec, name) is not None}
    if spec.protect is not None:
        settings["protect"] = per_stack(teacher, spec.protect)
    return settings


def per_stack(teacher: Teacher, blocks: Sequence[int]) -> dict[str, frozenset[int]]:
    """Block numbers, for each stack those that it has. Raises BadInput for one that none has."""
    deepest = max(stack.depth for stack in teacher.stacks)
    for block in blocks:
        if not 0 <= block < deepest:
            raise BadInput(
                f"protect block {block}",
                f"blocks 0 to {deepest - 1} of the teacher",
                "change protect",
            )
    out = {}
    for stack in teacher.stacks:
        out[stack.path] = frozenset(block for block in blocks if block < stack.depth)
    return out
