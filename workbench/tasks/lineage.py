"""Where a student comes from: its card, its plan, and the teachers behind it, as they still are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..records import BadInput, Card, Plan
from .context import Context
from .resolve import Model, resolve


@dataclass(frozen=True)
class Lineage:
    """A student and the folders of the teachers behind it.

    original: the teacher at the beginning of the chain and the plan against it, where that is not
    the direct teacher.
    """

    student: Model
    card: Card
    plan: Plan
    teacher: Path
    original: tuple[Path, Plan] | None

    @property
    def path(self) -> Path:
        return self.student.folder


def lineage(source: str, context: Context) -> Lineage:
    """Read a student's card and find its teachers.

    Raises BadInput for a model that is not a student, and where its teachers are not what they
    were.
    """
    student = resolve(source, context.store)
    card = student.card
    if card is None:
        raise BadInput(
            f"{student.folder} has no card.json",
            "a student folder that `workbench build` wrote",
            "build one from a plan",
        )
    teacher = unchanged(card.teacher, card.teacher_fingerprint, context)
    original = None
    if card.original != card.teacher and card.original_plan is not None:
        first = unchanged(card.original, card.original_fingerprint, context)
        plan = Plan.parse(card.original_plan, f"original_plan of {student.folder}")
        original = (first, plan)
    plan = Plan.parse(card.plan, f"plan of {student.folder}")
    return Lineage(student, card, plan, teacher, original)


def unchanged(name: str, fingerprint: str, context: Context) -> Path:
    """The folder of a teacher. Raises BadInput where its weights are not those of the card."""
    teacher = resolve(name, context.store)
    if fingerprint and teacher.fingerprint != fingerprint:
        raise BadInput(
            f"teacher {name} is {teacher.fingerprint}",
            f"{fingerprint}, the one this student was built from",
            "build the student again",
        )
    return teacher.folder
