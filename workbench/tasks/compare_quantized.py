"""The students of a comparison after quantising: each in each form, written beside its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..comparison.run import Entry, folder_name
from ..records import BadInput, Card, Progress
from ..specs.quantized_forms import QUANTIZED_FORMS
from ..surgery.quantize import Quantizing, check
from ..surgery.quantize import quantize as write_folder
from .compare_checks import QUANTISED
from .resolve import Model


@dataclass(frozen=True)
class Quantised:
    """A student in one form. entry: its name and the folder that it is written to."""

    entry: Entry
    order: Quantizing
    fingerprint: str

    @property
    def is_written(self) -> bool:
        """Whether an earlier run of the comparison wrote it, from the same weights."""
        file = self.entry.path / "card.json"
        if not file.is_file():
            return False
        made = Card.load(file).quantization
        expected = (self.order.form.name, self.fingerprint)
        return made is not None and (made.to, made.source_fingerprint) == expected


def quantised_students(
    forms: Sequence[str], entries: Sequence[Entry], compared: Sequence[Model], out: Path
) -> list[Quantised]:
    """Every student in every form, student by student; the first model is none, and those that are
    quantised stay as they are. Nothing is written.

    Raises BadInput for an unknown form, a student that cannot be written in it, and no student.
    """
    unknown = [form for form in forms if form not in QUANTIZED_FORMS]
    if unknown:
        expected = ", ".join(QUANTIZED_FORMS)
        raise BadInput(f"--quantized {', '.join(unknown)}", expected, "choose some of these")
    students = []
    for entry, model in list(zip(entries, compared, strict=True))[1:]:
        if model.card is None or model.card.quantization is None:
            students.append((entry, model))
    if forms and not students:
        raise BadInput("--quantized without a student", "one that is not quantised yet", "name one")
    found = []
    for entry, model in students:
        for form in dict.fromkeys(forms):
            found.append(quantised_student(entry, model, form, out))
    check_names([*entries, *[each.entry for each in found]])
    return found


def quantised_student(entry: Entry, model: Model, form: str, out: Path) -> Quantised:
    """Raises BadInput where the form cannot hold the student."""
    name = f"{entry.name} {form}"
    order = Quantizing(
        model.folder, model.name, model.description, model.card, QUANTIZED_FORMS[form]
    )
    folder = out / QUANTISED / folder_name(name)
    check(order, folder)
    return Quantised(replace(entry, name=name, path=folder), order, model.fingerprint)


def check_names(entries: Sequence[Entry]) -> None:
    """Refuse two models of one name: they would have one folder."""
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            expected = "names that differ, also with their forms"
            raise BadInput(f"two models named {entry.name}", expected, "rename one: NAME=MODEL")
        names.add(entry.name)


def write_quantised(quantised: Sequence[Quantised]) -> Iterator[Progress]:
    """Write the folders that are not there."""
    for number, each in enumerate(quantised):
        if each.is_written:
            continue
        message = f"quantising {each.entry.name}"
        for _ in write_folder(each.order, each.entry.path):
            yield Progress(step=number, total=len(quantised), message=message)
