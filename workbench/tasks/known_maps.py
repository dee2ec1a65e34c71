"""Which sensitivity map a verb reads: one that the user named, the workspace's newest, or the one
that ships with a bundled teacher. And which conditioning vectors: those recorded with a map.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .. import demo, plans
from ..records import SensitivityMap, Teacher
from ..records.sensitivity_map import VECTORS
from ..specs.teacher_weights import AS_LOADED
from ..workspace.record_index import Entry
from ..workspace.store import Store
from .resolve import BUNDLED


def named_map(name: str, store: Store) -> SensitivityMap:
    """A map by its file, or by its name or id in the workspace. Raises BadInput for neither."""
    known = None if Path(name).exists() else store.find("map", name)
    return SensitivityMap.load(known.path if known else name)


def bundled_map(teacher: Teacher) -> SensitivityMap | None:
    """The map that ships with a bundled teacher."""
    if teacher.name not in BUNDLED:
        return None
    return SensitivityMap.load(demo.map_of(teacher.name))


def newest_map(
    teacher: Teacher, store: Store, fits: Callable[[str, Sequence[str]], bool]
) -> SensitivityMap | None:
    """The workspace's newest map of a teacher whose metric and edits fit, else the bundled one if
    it does.

    A map of packed weights (--teacher-weights) is a map of another model: one is taken only where
    there is no other, and a line on stderr says so.
    """
    packed: Entry | None = None
    for entry in maps_of(teacher, store):
        if not fits(entry.metric, entry.edits):
            continue
        record = SensitivityMap.load(entry.path)
        if record.measured.get("teacher_weights", AS_LOADED) == AS_LOADED:
            return record
        packed = packed or entry
    bundled = bundled_map(teacher)
    if bundled is not None and fits(bundled.metric, bundled.edits):
        return bundled
    if packed is None:
        return None
    record = SensitivityMap.load(packed.path)
    weights = record.measured["teacher_weights"]
    line = f"note: {packed.path} was measured with {weights} weights, and there is no other map"
    print(line, file=sys.stderr, flush=True)
    return record


def maps_of(teacher: Teacher, store: Store) -> Iterator[Entry]:
    """The workspace's maps of a teacher, newest first."""
    for entry in store.maps(teacher.fingerprint):
        # a teacher known by its config alone has no fingerprint: its name must do
        if teacher.fingerprint or entry.teacher == teacher.name:
            yield entry


def recorded_vectors(teacher: Teacher, store: Store) -> str | None:
    """The conditioning vectors recorded with the newest map of a teacher that has some; None where
    there are none, and where they depend on the timestep alone, so that none are needed.
    """
    row = plans.family_of(teacher).conditioning
    if row is None or row.is_curve(teacher.config):
        return None
    for entry in maps_of(teacher, store):
        file = Path(entry.path).with_suffix(VECTORS)
        if file.is_file():
            return str(file)
    return None
