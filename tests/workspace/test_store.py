"""The index: found, forgotten, rebuilt; and votes."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from workbench.records import BadInput, Plan, Row, SensitivityMap, Span
from workbench.workspace.record_index import Entry
from workbench.workspace.schema import MIGRATIONS
from workbench.workspace.store import Store


def a_plan(name: str = "demo") -> Plan:
    return Plan(
        teacher=name,
        family="qwenimage",
        origin={"rule": "uniform"},
        stacks={"transformer_blocks": [Span(blocks=(0, 3))]},
    )


def a_map(fingerprint: str) -> SensitivityMap:
    row = Row(stack="transformer_blocks", block=0, edit="drop", timestep=500, score=0.1)
    return SensitivityMap(teacher="demo", fingerprint=fingerprint, family="qwenimage", rows=[row])


def names(entries: list[Entry]) -> set[str]:
    return {entry.name for entry in entries}


def test_files_put_there_by_hand_are_found_changed_and_forgotten(store: Store):
    path = store.workspace / "plans" / "mine.yaml"
    a_plan().save(path)
    (store.workspace / "plans" / "notes.txt").write_text("no record")
    (store.workspace / "plans" / "broken.yaml").write_text("{{")
    [found] = store.plans()
    assert (found.name, found.id, found.rule) == ("mine", a_plan().digest, "uniform")
    assert found.depth == {"transformer_blocks": 1}
    a_plan("other").save(path)
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert store.plans()[0].teacher == "other"
    path.unlink()
    assert store.plans() == []


def test_results_elsewhere_survive_the_database(store: Store, tmp_path: Path):
    a_plan().save(tmp_path / "there.yaml")
    record = store.add("plan", tmp_path / "there.yaml")
    assert (record.name, record.path) == ("there", str(tmp_path / "there.yaml"))
    a_map("f1").save(tmp_path / "m.json")
    store.add("map", tmp_path / "m.json")
    store.path.unlink()
    assert names(store.plans()) == {"there"}
    assert names(store.maps("f1")) == {"m"}
    assert store.maps("f2") == []
    assert (
        store.find("map", a_map("f1").digest)
        == store.find("map", str(tmp_path / "m.json"))
        == store.maps()[0]
    )
    (tmp_path / "there.yaml").unlink()
    assert store.plans() == []
    with pytest.raises(BadInput) as error:
        store.add("plan", tmp_path / "none.yaml")
    assert error.value.expected == "a plan"


def test_migrations_run_once(store: Store):
    with Store(store.workspace).db() as db:
        applied = [row["name"] for row in db.execute("SELECT name FROM migration ORDER BY name")]
        assert applied == [step.__name__ for step in MIGRATIONS]
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_a_stale_log_beside_a_deleted_database_is_not_replayed(store: Store):
    a_plan().save(store.workspace / "plans" / "mine.yaml")
    reader = sqlite3.connect(store.path)  # keeps the write-ahead log alive
    reader.execute("SELECT count(*) FROM job").fetchone()
    store.plans()
    store.path.unlink()
    assert names(store.plans()) == {"mine"}
    reader.close()
    assert names(store.plans()) == {"mine"}


def test_a_workspace_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput) as error:
        Store(tmp_path / "file")
    assert str(tmp_path / "file") in error.value.found
