"""Interactive requests: the client asks through the database, the resident session answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny_qwen_pipeline
from workbench import tasks
from workbench.tasks import session
from workbench.workspace import jobs
from workbench.workspace import session_client as requests
from workbench.workspace.processes import lock_path, try_lock
from workbench.workspace.store import Store

SMALL = {"steps": 2, "size": 32, "guidance": 1.0}


@pytest.fixture
def asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Starts of sessions that the client asked for; this test's process serves instead."""
    started: list[str] = []
    monkeypatch.setattr(
        requests,
        "ensure",
        lambda module, role, workspace, device: bool(started.append(device)) or True,
    )
    monkeypatch.setenv("WORKBENCH_SESSION_IDLE", "0.2")
    return started


def test_generate_and_preview(store: Store, asked: list[str], tmp_path: Path):
    teacher = str(tiny_qwen_pipeline(tmp_path / "teacher", depth=4))
    plan = tasks.run(
        "plan", {"teacher": teacher, "keep": 2, "out": str(tmp_path / "plan.yaml")}, store.workspace
    )["plan"]
    from workbench.records import Plan

    same = {"teacher": teacher, "prompts": ["a red circle"], "seeds": [3], **SMALL}
    numbers = [
        requests.request(
            store,
            "generate",
            {"models": [teacher, teacher], "prompt": "a red circle", "seed": 3, **SMALL},
        ),
        requests.request(store, "preview", {**same, "plan": Plan.load(plan).as_yaml()}),
        requests.request(
            store, "preview", {**same, "plan": {**Plan.load(plan).as_yaml(), "family": "other"}}
        ),
        requests.request(store, "dance", {}),
    ]
    assert [requests.result(store, n)["state"] for n in numbers] == ["queued"] * 4
    assert set(asked) == {"cpu"}
    assert session.serve(store, "cpu")
    pair, preview, bad, unknown = (requests.result(store, n) for n in numbers)
    first, second = (np.asarray(Image.open(p)) for p in pair["result"]["images"])
    assert (first == second).all(), "the same model, prompt and seed"
    assert preview["state"] == "done"
    assert preview["result"]["error"] > 0
    assert (np.asarray(Image.open(preview["result"]["teacher"][0])) == first).all()
    assert (bad["state"], unknown["state"]) == ("failed", "failed")
    assert "family other" in bad["error"]
    assert "expected one of generate, preview" in unknown["error"]


def test_a_request_that_was_being_served_when_the_session_died_fails(
    store: Store, asked: list[str]
):
    number = requests.request(store, "generate", {})
    assert session.take(store, "cpu") is not None
    session.serve(store, "cpu")
    assert "ask again" in requests.result(store, number)["error"]


def test_a_session_on_a_gpu_leaves_when_a_job_needs_it(
    store: Store, asked: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORKBENCH_SESSION_IDLE", "60")
    monkeypatch.setattr(session, "memory", lambda device: 1)
    jobs.submit(store, "count", {"steps": 1}, device="cuda:9", start=False)
    assert session.serve(store, "cuda:9")
    assert try_lock(lock_path(store.workspace, "device", "cuda:9")) is not None
    with store.db() as db:
        db.execute("DELETE FROM job")


def test_one_session_a_device(store: Store, asked: list[str]):
    lock = try_lock(lock_path(store.workspace, "session", "cpu"))
    assert lock is not None
    assert not session.serve(store, "cpu")
