"""The Hub is asked when a person names a Hub id, and never otherwise."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.models.test_hub import Hub
from tests.tiny import tiny_transformer
from workbench.ui.access import Access
from workbench.ui.launch_panel import LaunchPanel, SourceForm
from workbench.ui.plan_state import PlanState
from workbench.workspace import jobs
from workbench.workspace.store import Store

from .conftest import App, fill
from .driving import choose, clean, ready, says, until


class WatchedHub(Hub):
    """A small Hub on loopback that keeps the paths it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[WatchedHub]]:
    """A Hub with one repository; processes started from here ask it instead of huggingface.co."""
    tiny_transformer(depth=3).save_pretrained(tmp_path / "hub" / "teacher")
    WatchedHub.repos = {"some/teacher": tmp_path / "hub" / "teacher"}
    WatchedHub.served, WatchedHub.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), WatchedHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_DEVICE", "cpu")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield WatchedHub
    server.shutdown()
    server.server_close()


def ended(store: Store, count: int) -> list[jobs.Job]:
    """All jobs, once so many have ended."""
    until(lambda: len(jobs.list_jobs(store)) == count, 60)
    until(lambda: not jobs.list_jobs(store, active=True), 400)  # a scan on a slow machine
    return jobs.list_jobs(store)


def test_the_app_leaves_the_hub_to_the_user(monkeypatch: pytest.MonkeyPatch):
    """Importing the app neither switches the Hub off, for itself or for the jobs it starts, nor
    leaves telemetry on.
    """
    import subprocess
    import sys

    names = ["HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    code = f"import os, workbench.ui; print([os.environ.get(name) for name in {names}])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[None, '1', 'False']"


def test_a_hub_id_is_read_from_the_hub(hub: type[WatchedHub], tmp_path: Path):
    """The form submits a job; its teacher enters the workspace."""
    store = Store(tmp_path / "workspace")
    panel = LaunchPanel(PlanState(store))
    panel.on_add(SourceForm("some/teacher"))
    job = ended(store, 1)[0]
    assert job.state == "done", job.error
    assert [row.teacher for row in store.teachers()] == ["some/teacher"]
    assert any("some/teacher" in path for path in hub.asked)


def test_a_local_teacher_asks_the_hub_for_nothing(hub: type[WatchedHub], tmp_path: Path):
    store = Store(tmp_path / "workspace")
    access = Access(store, folders=(tmp_path / "hub",))
    panel = LaunchPanel(PlanState(store, access))
    panel.on_add(SourceForm(str(tmp_path / "hub" / "teacher")))
    assert ended(store, 1)[0].state == "done"
    assert hub.asked == []


@pytest.mark.browser
def test_only_a_named_hub_id_leaves_the_machine(
    hub: type[WatchedHub], tmp_path: Path, open_tab: Any, monkeypatch: pytest.MonkeyPatch
):
    """In the browser: opening the app, profiling the bundled teacher and previewing ask nobody;
    adding a Hub id asks the Hub, and no other host is even looked up.
    """
    spy = tmp_path / "lookups.txt"
    folder = str(Path(__file__).parent / "spy")
    monkeypatch.setenv("WORKBENCH_SPY", str(spy))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    app = App(fill(tmp_path / "workspace", 24)).start()
    store = Store(app.workspace)
    try:
        tab = open_tab(app.url)
        ready(tab)
        choose(tab, "teacher", "demo-12 (bundled)")
        says(tab, "#header", "demo-12")
        tab.page.get_by_role("tab", name="Profile").click()
        prompts = app.workspace / "one.txt"
        prompts.write_text("a red circle\n")
        for name, value in {
            "size": "64",
            "timesteps": "1",
            "sampling-steps": "2",
            "prompts": str(prompts),
        }.items():
            box = tab.page.locator(f"#profile-{name} textarea, #profile-{name} input")
            box.first.fill(value)
        tab.page.locator("#profile").click()
        says(tab, "#launch-message", "job 0001")
        job = ended(store, 1)[0]
        assert job.state == "done", job.error
        assert hub.asked == [] and not spy.exists()
        tab.page.get_by_role("tab", name="Add a teacher").click()
        tab.page.locator("#source textarea, #source input").first.fill("some/teacher")
        tab.page.locator("#add").click()
        assert ended(store, 2)[0].state == "done"
        assert hub.asked and not spy.exists(), spy.read_text()
        tab.page.locator("#teacher input").first.click()
        until(lambda: tab.page.get_by_role("option", name="some/teacher").count() > 0)
        clean(tab)
    finally:
        app.kill()
        time.sleep(0.1)
