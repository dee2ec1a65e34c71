"""What a comparison says of a student beside its teacher, for the model card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..records import BadInput, Comparison, Difference, ModelResult, Score

STRIP = 6  # pictures a model in the card's picture
SIDE = 256  # pixels, of one picture there
GAP = 4  # pixels between pictures


@dataclass(frozen=True)
class Change:
    """A category's score of teacher and student. lost: how far the student is behind, in the
    scorer's unit; below 0 where it is ahead.
    """

    category: str
    teacher: float
    student: float
    lost: float


@dataclass(frozen=True)
class Evidence:
    """A comparison that a student was part of.

    folder: with the pictures. name: of the student in it. The first model is the teacher.
    """

    comparison: Comparison
    folder: Path
    name: str

    @property
    def teacher(self) -> ModelResult:
        return self.comparison.models[0]

    @property
    def student(self) -> ModelResult:
        return next(model for model in self.comparison.models if model.name == self.name)

    def scorers(self) -> list[str]:
        """Names of the scorers that judged both."""
        return [name for name in self.student.scores if name in self.teacher.scores]

    def difference(self, scorer: str) -> Difference | None:
        """The paired difference to the teacher, where the comparison has one."""
        return self.student.difference.get(scorer)

    def changes(self, scorer: str) -> list[Change]:
        """The categories of a scorer, what lost most first."""
        before: Score = self.teacher.scores[scorer]
        after: Score = self.student.scores[scorer]
        sign = 1 if after.higher_is_better else -1
        changes = []
        for category, value in after.by_category.items():
            if category in before.by_category:
                old = before.by_category[category]
                changes.append(Change(category, old, value, sign * (old - value)))
        return sorted(changes, key=lambda change: -change.lost)

    def shown(self) -> list[int]:
        """Numbers of the pictures to show: evenly over the comparison's prompts, so that nobody
        has chosen them by how they look.
        """
        count = len(self.comparison.images.get(self.name, ()))
        shown = min(STRIP, count)
        return [number * count // shown for number in range(shown)]

    def strip(self) -> Image.Image | None:
        """Teacher's pictures above the student's, of the same prompts and noise; None where the
        comparison's pictures are gone.
        """
        numbers = self.shown()
        rows = [self.comparison.images.get(name, []) for name in (self.teacher.name, self.name)]
        if not numbers or any(len(row) <= numbers[-1] for row in rows):
            return None
        step = SIDE + GAP
        size = (step * len(numbers) - GAP, step * len(rows) - GAP)
        strip = Image.new("RGB", size, "white")
        for down, files in enumerate(rows):
            for across, number in enumerate(numbers):
                file = self.folder / files[number]
                if not file.is_file():
                    return None
                with Image.open(file) as picture:
                    fitted = thumbnail(picture.convert("RGB"))
                strip.paste(fitted, (across * step, down * step))
        return strip

    def captions(self) -> list[str]:
        """The prompts of the pictures shown."""
        seeds = len(self.comparison.seeds)
        return [self.comparison.prompts[number // seeds] for number in self.shown()]


def thumbnail(picture: Image.Image) -> Image.Image:
    """A picture scaled to SIDE, its longer side; small ones grow without smoothing."""
    scale = SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return picture.resize(size, method)


def evidence_of(comparison: Comparison, folder: Path, student: Path) -> Evidence | None:
    """The comparison as evidence of the student in a folder; None where it is not one of its
    models, or is the first, which the others are compared with.
    """
    for model in comparison.models[1:]:
        if model.source and Path(model.source).expanduser().resolve() == student.resolve():
            return Evidence(comparison, folder, model.name)
    return None


def check_evidence(file: Path, student: Path) -> Evidence:
    """The evidence in a comparison's file. Raises BadInput where the student is not in it."""
    path = file / "comparison.json" if file.is_dir() else file
    comparison = Comparison.load(path)
    evidence = evidence_of(comparison, path.parent, student)
    if evidence is None:
        names = ", ".join(f"{model.name} ({model.source})" for model in comparison.models)
        raise BadInput(
            f"{path} compares {names}",
            f"a comparison of a teacher with {student}",
            "compare them first: workbench compare TEACHER STUDENT",
        )
    return evidence
