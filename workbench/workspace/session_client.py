"""Interactive work asked of the resident session process: the client's half. Never imports torch;
`session.py` answers.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from ..records import BadInput
from .processes import default_device, ensure
from .store import Store


def request(store: Store, kind: str, spec: dict[str, Any], *, device: str = "") -> int:
    """Ask for something and see to it that a session runs. Returns the request's number.

    Kinds and their results are listed in `session.SERVICES`.
    """
    device = device or default_device()
    with store.db() as db:
        cursor = db.execute(
            "INSERT INTO request (kind, spec, device, state, created) VALUES (?, "
            "?, ?, 'queued', ?)",
            (kind, json.dumps(spec), device, time.time()),
        )
        number = cursor.lastrowid
    ensure_session(store.workspace, device)
    assert number is not None
    return number


def result(store: Store, number: int) -> dict[str, Any]:
    """{id, kind, state, result, error}; state is queued, running, done or failed. Starts a session
    again where one was lost.

    While it runs, the result may be {"message": what is being done}.
    """
    with store.db(write=False) as db:
        row = db.execute("SELECT * FROM request WHERE id = ?", (number,)).fetchone()
    if row is None:
        raise BadInput(
            f"request {number} is not in {store.workspace}",
            "a number that `request` gave",
            "ask again",
        )
    if row["state"] in ("queued", "running"):
        ensure_session(store.workspace, row["device"])
    return {
        "id": row["id"],
        "kind": row["kind"],
        "state": row["state"],
        "error": row["error"] or "",
        "result": json.loads(row["result"]) if row["result"] else None,
    }


def wait(store: Store, number: int, timeout: float = 600) -> dict[str, Any]:
    """Wait for an answer. Raises BadInput where the session says the request is bad, RuntimeError
    on its fault or timeout.
    """
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        answer = result(store, number)
        if answer["state"] == "done":
            return answer
        if answer["state"] == "failed":
            raise RuntimeError(answer["error"])
        time.sleep(0.1)
    raise RuntimeError(f"request {number} is not answered after {timeout:g} s")


def forget(store: Store, number: int) -> None:
    """Withdraw a request that nobody waits for any more; one being served is finished."""
    with store.db() as db:
        db.execute("DELETE FROM request WHERE id = ? AND state != 'running'", (number,))


def ensure_session(workspace: Path, device: str) -> bool:
    """Start the device's session unless one runs. Returns whether one was started."""
    return ensure("workbench.tasks.session", "session", workspace, device)
