"""What is known of a teacher without its weights: the kind info, its description, its map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import demo, models, plans
from ..records import BadInput, Progress, SensitivityMap, Teacher
from ..workspace.store import Store
from .context import Context
from .resolve import BUNDLED, HUB_ID, at_hand, locate, published


def describe(source: str, store: Store) -> Teacher:
    """A teacher from its headers, kept in the workspace; one whose weights are not here from the
    workspace's record of it.
    """
    if (match := HUB_ID.fullmatch(source)) and not at_hand(source, store):
        return keep(on_hub(source, match[1], match[2], store), store)
    path, name = locate(source, store, weights=False)
    return (
        Teacher.load(path)
        if path == published(source, store)
        else keep(models.describe(path, name), store)
    )


def on_hub(source: str, repo: str, revision: str | None, store: Store) -> Teacher:
    """A Hub id: from its weights where they are in the cache, else from their headers by range
    requests, else from a cached config.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(repo, "transformer/config.json", revision=revision)
    if isinstance(config, str) and any(Path(config).parent.glob("*.safetensors")):
        return models.describe(Path(config).parent, source)
    try:
        return models.describe_hub(repo, revision)
    except BadInput:
        path, name = locate(source, store, weights=False)
        return models.describe(path, name)


def keep(teacher: Teacher, store: Store) -> Teacher:
    """Write a teacher's record into the workspace, unless it is there."""
    file = store.workspace / "teachers" / f"{Path(teacher.name).name}-{teacher.digest}.json"
    if not file.exists():
        teacher.save(file)
    return teacher


def map_for(
    teacher: Teacher, given: str | None, store: Store, needed: bool
) -> SensitivityMap | None:
    """The map to plan with: the given file; else, where a rule needs one, the workspace's newest of
    this teacher, else the bundled one.
    """
    if given:
        known = None if Path(given).exists() else store.find("map", given)
        return SensitivityMap.load(known["path"] if known else given)
    if not needed:
        return None
    known_maps = store.maps(teacher.fingerprint)
    if not teacher.fingerprint:  # known by its config alone: its name must do
        known_maps = [row for row in known_maps if row["teacher"] == teacher.name]
    return SensitivityMap.load(known_maps[0]["path"]) if known_maps else bundled_map(teacher)


def bundled_map(teacher: Teacher) -> SensitivityMap | None:
    """The map that ships with a bundled teacher."""
    if teacher.name not in BUNDLED:
        return None
    path = Path(demo.__file__).parent / (
        "sensitivity.json" if teacher.name == "demo" else "sensitivity-12.json"
    )
    return SensitivityMap.load(path) if path.is_file() else None


def info(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: teacher."""
    teacher = describe(spec["teacher"], context.store)
    result = {
        "teacher": teacher.name,
        **plans.info_rows(teacher),
        "dtype": teacher.dtype,
        "fingerprint": teacher.fingerprint,
    }
    yield Progress(step=1, total=1, result=result)
