"""Where a student comes from: its card, its plan, and the teachers behind it, as they still are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..records import BadInput, Card, Plan
from .context import Context
from .info import describe
from .resolve import locate


@dataclass
class Lineage:
    """A student folder and the teachers behind it."""

    path: Path
    card: Card
    plan: Plan
    teacher: Path
    original: tuple[Path, Plan] | None  # where it is not the direct teacher


def lineage(source: str, context: Context) -> Lineage:
    """Read a student's card and find its teachers. Raises BadInput where they are not what they
    were.
    """
    path, _ = locate(source, context.store)
    if not (path / "card.json").is_file():
        raise BadInput(
            f"{path} has no card.json",
            "a student folder that `workbench build` wrote",
            "build one from a plan",
        )
    card = Card.load(path / "card.json")
    teacher = described(card.teacher, card.teacher_fingerprint, context)
    original = None
    if card.original != card.teacher and card.original_plan is not None:
        first = described(card.original, card.original_fingerprint, context)
        original = (first, Plan.parse(card.original_plan, f"original_plan of {path}"))
    return Lineage(path, card, Plan.parse(card.plan, f"plan of {path}"), teacher, original)


def described(name: str, fingerprint: str, context: Context) -> Path:
    path, _ = locate(name, context.store)
    found = describe(name, context.store).fingerprint
    if fingerprint and found != fingerprint:
        raise BadInput(
            f"teacher {name} is {found}",
            f"{fingerprint}, the one this student was built from",
            "build the student again",
        )
    return path
