"""The numbers of a reproduction, from its spec, and the folders it writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ...records import BadInput, jsonfile, write_atomic
from ...specs import ReproduceSpec
from .table import Row, RowId

MINUTES = 10.0  # of training a row
QUICK_MINUTES = 10.0  # in all
OVERHEAD = 14.0  # seconds a row beside its training, on the bundled teacher, in a quick run
FINALS = 6  # times the training of a row


@dataclass(frozen=True)
class Settings:
    """finals: the best rows train again, longer. minutes: of training a row. sampling_steps: None: the teacher's own. scenes: to train on."""

    quick: bool
    finals: bool
    minutes: float
    prompts_per_category: int
    sampling_steps: int | None
    scenes: int

    @classmethod
    def of(cls, spec: ReproduceSpec, rows: int, trained: int) -> Settings:
        """rows: of all tables, finals included. trained: those of them that are trained."""
        minutes = MINUTES
        if spec.quick:
            spare = max(60 * QUICK_MINUTES - OVERHEAD * rows, 0) / 60
            minutes = round(spare / max(trained, 1), 3)
        if spec.minutes_per_row is not None:
            minutes = spec.minutes_per_row
        return cls(
            quick=spec.quick,
            finals=not (spec.no_finals or spec.quick),
            minutes=minutes,
            prompts_per_category=spec.prompts_per_category or (2 if spec.quick else 40),
            sampling_steps=spec.sampling_steps or (10 if spec.quick else None),
            scenes=spec.scenes or (1024 if spec.quick else 8192),
        )


@dataclass(frozen=True)
class Folders:
    """Where a reproduction writes: `out`/TABLE/GROUP/ROW, and the maps that rules read."""

    out: Path

    def group(self, table: str, group: str) -> Path:
        return self.out / table / slug(group)

    def row(self, table: str, row: RowId) -> Path:
        return self.group(table, row.group) / slug(row.row)

    def map(self, teacher: str, metric: str) -> Path:
        return self.out / "maps" / teacher / f"{metric}.json"

    def pace(self, teacher: str) -> Path:
        """The teacher's seconds per forward, by which every row's minutes are worth the same."""
        return self.out / f"pace-{teacher}.json"

    def student(self, folder: Path) -> Path:
        """The student that a row ended with."""
        row = jsonfile.read_object(folder / "row.json", "a row of a reproduction")
        return self.out / row["student"]

    def write_row(self, folder: Path, row: Row, student: Path, minutes: float) -> None:
        """Say that a row is done."""
        about = {
            "row": row.name,
            "student": student.relative_to(self.out).as_posix(),
            "minutes": minutes if row.train else 0,
        }
        write_atomic(folder / "row.json", json.dumps(about))


def slug(text: str) -> str:
    """A folder's name: letters, digits and dashes."""
    spelled = text.replace("%", "percent").replace("+", "plus")
    return re.sub(r"[\W_]+", "-", spelled).strip("-").lower()


def check_out(out: Path, spec: ReproduceSpec, minutes: float) -> None:
    """Refuse a file, a folder with something else in it, and a report of other settings; make it a
    report of these.
    """
    settings = {
        "table": spec.table,
        "quick": spec.quick,
        "prompts_per_category": spec.prompts_per_category,
        "steps": spec.sampling_steps,
        "minutes": minutes,
    }
    file = out / "report.json"
    expected = "a new folder, or a report to continue"
    if out.exists() and not out.is_dir():
        raise BadInput(f"-o {out} is a file", expected, "choose another -o")
    if out.exists() and not file.exists() and any(out.iterdir()):
        raise BadInput(f"-o {out} has no report.json", expected, "choose another -o")
    if file.exists() and jsonfile.read_object(file, "a reproduction").get("settings") != settings:
        found = f"-o {out} holds a report of other settings"
        raise BadInput(found, "the same table, minutes and prompts", "choose another -o")
    write_atomic(file, json.dumps({"settings": settings}))
