"""What a table of `workbench reproduce` consists of.

A table has groups of equal size; a group has rows. Within a group every student has at most the
same share of its teacher's parameters and trains for the same time on the same scenes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...specs import PlanSpec

StageChanges = Mapping[str, Any]  # fields of records.Stage
OPTIMIZER: StageChanges = {
    "optimizer": "muon",
    "lr": 2e-3,
    "batch": 48,
    "schedule": "linear",
    "warmup": 10,
    "weight_decay": 0.0,
    "precision": "bfloat16",
    "ema": 0.99,
    "accumulate": 1,
}
OURS = "workbench"  # our recipe, and the rows that show it


@dataclass(frozen=True)
class RowId:
    """A row of a table, by the name of its group and its own."""

    group: str
    row: str


@dataclass(frozen=True)
class Row:
    """One student.

    plan: its plan, without teacher and output. keep_share: how many blocks it keeps, as a share of
    the teacher's depth; takes the place of the plan's `keep`. start: the row of the same group
    whose built student it trains or whose student it rounds, in place of a plan. train: the recipe
    whose stages train it; empty: none. changes: fields that differ in every stage. second_step_of:
    the row of the same table whose student is this row's teacher. slow: a quick run has no time for
    it.
    """

    name: str
    plan: PlanSpec | None = None
    keep_share: float | None = None
    start: str = ""
    train: str = OURS
    changes: StageChanges = field(default_factory=dict)
    second_step_of: RowId | None = None
    int4: bool = False
    slow: bool = False
    about: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of one teacher and one size.

    ratio: share of the teacher's parameters that no student exceeds. finals: the two best rows
    train again, longer.
    """

    name: str
    ratio: float
    rows: tuple[Row, ...]
    teacher: str = "demo"
    finals: bool = False


@dataclass(frozen=True)
class Table:
    """paper: its arXiv id."""

    title: str
    paper: str
    groups: tuple[Group, ...]

    def rows(self) -> Iterator[tuple[RowId, Row]]:
        for group in self.groups:
            for row in group.rows:
                yield RowId(group.name, row.name), row


def plan(**options: Any) -> PlanSpec:
    """Options of a row's plan. Its teacher is the group's."""
    return PlanSpec.parse({"teacher": "demo", **options})


def half(
    name: str, about: str = "", *, train: str = OURS, slow: bool = False, **options: Any
) -> Row:
    """A row that keeps half of the blocks."""
    spec = plan(free_cuts=True, **options)
    return Row(name, spec, keep_share=0.5, train=train, slow=slow, about=about)
