"""What is known of a teacher without its weights: the kind info, its description, its map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .. import demo, plans
from ..records import Progress, SensitivityMap, Teacher
from ..specs import InfoSpec
from ..workspace.store import Store
from .context import Context
from .resolve import BUNDLED, resolve


def describe(source: str, store: Store) -> Teacher:
    """What a model is made of. Former function, until its callers ask the Model."""
    return resolve(source, store, weights=False).description


def map_for(
    teacher: Teacher, given: str | None, store: Store, needed: bool
) -> SensitivityMap | None:
    """The map to plan with: the given file; else, where a rule needs one, the workspace's newest of
    this teacher, else the bundled one.
    """
    if given:
        known = None if Path(given).exists() else store.find("map", given)
        return SensitivityMap.load(known.path if known else given)
    if not needed:
        return None
    known_maps = store.maps(teacher.fingerprint)
    if not teacher.fingerprint:  # known by its config alone: its name must do
        known_maps = [row for row in known_maps if row.teacher == teacher.name]
    return SensitivityMap.load(known_maps[0].path) if known_maps else bundled_map(teacher)


def bundled_map(teacher: Teacher) -> SensitivityMap | None:
    """The map that ships with a bundled teacher."""
    if teacher.name not in BUNDLED:
        return None
    return SensitivityMap.load(demo.map_of(teacher.name))


def info(spec: InfoSpec, context: Context) -> Iterator[Progress]:
    """Family, stacks, parameters, memory."""
    teacher = resolve(spec.teacher, context.store, weights=False).description
    result = {
        "teacher": teacher.name,
        **plans.teacher_info(teacher),
        "dtype": teacher.dtype,
        "fingerprint": teacher.fingerprint,
    }
    yield Progress(step=1, total=1, result=result)
