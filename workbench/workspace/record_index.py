"""What the workspace's lists show of each record, and which files are records."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ..records import BadInput, Card, Comparison, Plan, Record, SensitivityMap, Teacher

RECORD_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class RecordKind:
    """A kind of record. folder: of the workspace. marker: the file that makes a folder one, empty
    where the record is the file itself.
    """

    model: type[Record]
    folder: str
    marker: str = ""

    def record_file(self, path: Path) -> Path:
        """The file to read of a record at `path`."""
        if self.marker:
            return path / self.marker
        return path


KINDS = {
    "teacher": RecordKind(Teacher, "teachers"),
    "map": RecordKind(SensitivityMap, "sensitivity"),
    "plan": RecordKind(Plan, "plans"),
    "student": RecordKind(Card, "students", "card.json"),
    "comparison": RecordKind(Comparison, "comparisons", "comparison.json"),
    "release": RecordKind(Card, "releases", "card.json"),
}


class Entry(Record):
    """A line of the index: where a record is, and what a list shows of it.

    id: its digest. created: when its file was written, seconds since the epoch. The fields from
    `teacher` on are None or empty where that kind of record has no such thing. damaged: why the
    record cannot be read; empty for a sound one.
    """

    kind: str
    id: str
    name: str
    path: str
    created: float
    damaged: str = ""
    teacher: str = ""
    fingerprint: str | None = None  # of the teacher's weights
    family: str = ""
    parameters: int | None = None
    metric: str = ""
    edits: list[str] = Field(default_factory=list)
    timesteps: int = 0
    rows: int = 0
    rule: str | None = None  # that made the plan
    depth: dict[str, int] = Field(default_factory=dict)  # blocks per stack
    original: str | None = None  # the first teacher of a student's lineage
    original_parameters: int | None = None
    stock: bool | None = None  # a plain diffusers class
    suite: str = ""
    models: list[str] = Field(default_factory=list)
    prompts: int = 0


@dataclass(frozen=True)
class Candidate:
    """A file or folder that may be a record."""

    path: str  # real
    name: str
    mtime: float


def candidates(kind: RecordKind, folder: Path) -> list[Candidate]:
    """What lies in a kind's folder; links point to results elsewhere."""
    found: dict[str, Candidate] = {}
    if not folder.is_dir():  # of a workspace that cannot be written to
        return []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if not kind.marker and entry.suffix not in RECORD_SUFFIXES:
            continue
        with suppress(OSError):
            mtime = kind.record_file(entry).stat().st_mtime
            path = os.path.realpath(entry)
            found[path] = Candidate(path, shown_name(kind, entry), mtime)
    return list(found.values())


def shown_name(kind: RecordKind, entry: Path) -> str:
    """A record's name: of its file, without the mark that makes links unique."""
    name = entry.name
    if not kind.marker:
        name = entry.stem
    if entry.is_symlink():
        name = name.rpartition("@")[0]
    return name


def read_entry(kind: str, candidate: Candidate) -> Entry:
    """The index line of a record; a damaged one says why it cannot be read."""
    row = KINDS[kind]
    entry = Entry(
        kind=kind,
        id="",
        name=candidate.name,
        path=candidate.path,
        created=candidate.mtime,
    )
    try:
        record = row.model.load(row.record_file(Path(candidate.path)))
    except BadInput as error:
        return entry.model_copy(update={"damaged": error.found})
    return entry.model_copy(update={"id": record.digest, **shown_fields(record)})


def shown_fields(record: Record) -> dict[str, object]:
    """What a list shows of a record, as fields of `Entry`."""
    if isinstance(record, Teacher):
        return {
            "teacher": record.name,
            "fingerprint": record.fingerprint,
            "family": record.family,
            "parameters": record.parameters,
        }
    if isinstance(record, SensitivityMap):
        return {
            "teacher": record.teacher,
            "fingerprint": record.fingerprint,
            "family": record.family,
            "metric": record.metric,
            "edits": record.edits,
            "timesteps": len(record.timesteps),
            "rows": len(record.rows),
        }
    if isinstance(record, Plan):
        return {
            "teacher": record.teacher,
            "family": record.family,
            "rule": record.origin.get("rule"),
            "depth": record.depth(),
        }
    if isinstance(record, Card):
        return {
            "teacher": record.teacher,
            "fingerprint": record.teacher_fingerprint,
            "original": record.original,
            "parameters": record.parameters,
            "original_parameters": record.original_parameters,
            "stock": record.stock,
        }
    if isinstance(record, Comparison):
        return {
            "suite": record.suite,
            "models": [model.name for model in record.models],
            "prompts": len(record.prompts),
        }
    raise TypeError(f"{type(record).__name__} is not indexed")
