"""Notices of a job's end: a real webhook of this machine, and one that is dead."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from workbench.workspace import jobs
from workbench.workspace.store import Store

from .conftest import until, wait_for

Received = list[dict[str, Any]]


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    """What is posted to a server of this machine, as it comes in."""
    received: Received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            received.append(json.loads(data))

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WORKBENCH_WEBHOOK", f"http://127.0.0.1:{server.server_port}/jobs")
    yield received
    server.shutdown()
    server.server_close()


def test_a_webhook_hears_how_jobs_end_and_nothing_of_those_that_were_stopped(
    store: Store, webhook: Received
):
    good = jobs.submit(store, "count", {"steps": 2}, title="two steps")
    bad = jobs.submit(store, "crash", {})
    stopped = jobs.submit(store, "count", {"steps": 2}, start=False)
    jobs.cancel(store, stopped.id)
    until(lambda: len(webhook) == 2, 60)
    first, second = sorted(webhook, key=lambda notice: notice["job"])
    assert (first["job"], first["state"]) == (good.id, "done")
    assert first["text"] == first["content"] == f"two steps (job {good.id}) is done"
    assert first["seconds"] >= 0
    assert (second["job"], second["state"]) == (bad.id, "failed")
    assert second["text"].endswith("is failed: ZeroDivisionError: by design")
    assert second["error"].count("ZeroDivisionError") > 1, "the log's last lines, too"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/nobody", "ftp://elsewhere"])
def test_a_dead_webhook_harms_no_job_and_says_so(
    store: Store, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.setenv("WORKBENCH_WEBHOOK", url)
    job = jobs.submit(store, "count", {"steps": 2})
    assert wait_for(store, job.id, "done", "failed", "lost").error == ""
    log = store.workspace / "jobs" / ".notices.log"
    until(lambda: log.exists() and "the webhook did not take the notice" in log.read_text())
    assert jobs.show(store, job.id).result == {"counted": 2}
