"""A workspace whose workers leave soon and whose jobs are the ones in kinds.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workbench.plugins import load_plugin
from workbench.workspace import jobs
from workbench.workspace.processes import lock_path, try_lock
from workbench.workspace.store import Store

ROOT = Path(__file__).resolve().parents[2]
KINDS = ROOT / "tests" / "workspace" / "kinds.py"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    load_plugin(KINDS)  # a job's own process loads it from the spec
    monkeypatch.setenv("WORKBENCH_IDLE", "0.3")
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    store = Store(tmp_path / "workspace")
    yield store
    for job in jobs.list_jobs(store, active=True):
        jobs.cancel(store, job.id)
    for role in ("worker", "device"):
        until(lambda role=role: free(store, role))


def free(store: Store, role: str) -> bool:
    lock = try_lock(lock_path(store.workspace, role, "cpu"))
    if lock is not None:
        os.close(lock)
    return lock is not None


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.03)


def wait_for(store: Store, job: str, *states: str, seconds: float = 30) -> jobs.Job:
    until(lambda: jobs.show(store, job).state in states, seconds)
    return jobs.show(store, job)
