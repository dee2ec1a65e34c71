"""Where a student comes from: its card, its plan, and the teachers behind it, as they still are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import models
from ..models.quantized.stored import check_unquantized
from ..records import BadInput, Card, Plan
from ..workspace.store import Store
from .resolve import Model, resolve


@dataclass(frozen=True)
class Lineage:
    """A student and the teachers behind it."""

    student: Model
    card: Card
    plan: Plan  # over its teacher
    teacher: Model
    original: tuple[Model, Plan] | None  # where it is not the direct teacher

    @property
    def first_teacher(self) -> Model:
        """The one at the beginning of the chain, whose text encoder and VAE are the student's."""
        return self.original[0] if self.original else self.teacher


def lineage(source: str, store: Store) -> Lineage:
    """Read a student's card and find its teachers.

    Raises BadInput for what is not a student, and where a teacher is not what it was.
    """
    student = resolve(source, store)
    card = student.card
    if card is None:
        raise not_a_student(student)
    check_unquantized(models.transformer_folder(student.folder), student.name, "distill")
    teacher = unchanged_teacher(card.teacher, card.teacher_fingerprint, store)
    original = None
    if card.original != card.teacher and card.original_plan is not None:
        first = unchanged_teacher(card.original, card.original_fingerprint, store)
        original = (first, Plan.parse(card.original_plan, f"original_plan of {student.name}"))
    plan = Plan.parse(card.plan, f"plan of {student.name}")
    return Lineage(student, card, plan, teacher, original)


def not_a_student(model: Model) -> BadInput:
    """The error for a teacher, or another folder, in a student's place."""
    expected = "a folder that `workbench build` or `workbench distill` wrote"
    if not models.is_pipeline(model.folder):
        return BadInput(f"{model.name} is not a student (no card.json)", expected, "check the path")
    return BadInput(
        f"{model.name} is a teacher, not a student (no card.json)",
        expected,
        f"build one first: workbench plan {model.name} --keep N -o plan.yaml, then workbench "
        "build plan.yaml",
    )


def unchanged_teacher(name: str, fingerprint: str, store: Store) -> Model:
    """The teacher of that name; where it has moved, the one that the workspace knows by the same
    fingerprint. Raises BadInput where its weights have another fingerprint.
    """
    try:
        teacher = resolve(name, store)
    except BadInput as error:
        moved = moved_teacher(fingerprint, store)
        if moved is None:
            do = "if it has moved, run `workbench info NEW_PATH` once: it is found by its weights"
            raise BadInput(error.found, error.expected, do) from None
        return moved
    if fingerprint and teacher.fingerprint != fingerprint:
        raise BadInput(
            f"teacher {name} is {teacher.fingerprint}",
            f"{fingerprint}, the one this student was built from",
            "build the student again",
        )
    return teacher


def moved_teacher(fingerprint: str, store: Store) -> Model | None:
    """A model that the workspace has a record of, with these weights, where it still is."""
    for row in store.teachers():
        if fingerprint and row.fingerprint == fingerprint and Path(row.teacher).is_dir():
            found = resolve(row.teacher, store)
            if found.fingerprint == fingerprint:
                return found
    return None
