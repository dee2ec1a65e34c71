"""Which map a verb reads: the named one, the newest that fits, the bundled one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.refusals import refused
from workbench import demo
from workbench.records import Row, SensitivityMap, Teacher
from workbench.tasks.known_maps import bundled_map, named_map, newest_map
from workbench.workspace.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def saved(store: Store, name: str, written: int, **fields: str) -> SensitivityMap:
    """A map in the workspace, written at a time in seconds."""
    about = {"teacher": "t", "fingerprint": "f", "family": "qwenimage", "metric": "prediction"}
    row = Row(stack="s", block=0, edit="drop", score=float(written))
    record = SensitivityMap(rows=[row], **{**about, **fields})
    file = record.save(store.workspace / "sensitivity" / f"{name}.json")
    os.utime(file, (written, written))
    return record


def described(name: str = "t", fingerprint: str = "f") -> Teacher:
    return Teacher(
        name=name, family="qwenimage", class_name="X", outside=0, stacks=[], fingerprint=fingerprint
    )


def anything(metric: str, edits: Sequence[str]) -> bool:
    return True


def test_a_map_is_named_by_its_file_its_name_or_its_id(store: Store) -> None:
    record = saved(store, "mine", 1)
    file = store.workspace / "sensitivity" / "mine.json"
    for name in (str(file), "mine", record.digest):
        assert named_map(name, store) == record
    with refused(found="nowhere"):
        named_map("nowhere", store)


def test_the_newest_map_that_fits_is_taken(store: Store) -> None:
    older = saved(store, "older", 1)
    newer = saved(store, "newer", 2, metric="cka")
    saved(store, "another", 3, fingerprint="g")
    assert newest_map(described(), store, anything) == newer
    assert newest_map(described(), store, lambda metric, edits: metric != "cka") == older
    assert newest_map(described(fingerprint="h"), store, anything) is None


def test_without_a_fingerprint_the_name_decides(store: Store) -> None:
    saved(store, "one", 1, fingerprint="", teacher="one")
    saved(store, "two", 2, fingerprint="", teacher="two")
    record = newest_map(described("one", ""), store, anything)
    assert record is not None and record.teacher == "one"


def test_a_bundled_teachers_own_map_is_the_last_resort_and_must_fit_too(store: Store) -> None:
    teacher = described("demo")
    bundled = SensitivityMap.load(demo.map_of("demo"))
    assert newest_map(teacher, store, anything) == bundled == bundled_map(teacher)
    assert newest_map(teacher, store, lambda metric, edits: metric == "cka") is None
    own = saved(store, "own", 1, teacher="demo")
    assert newest_map(teacher, store, anything) == own
    assert bundled_map(described()) is None
