"""The resident process for interactive work: keeps pipelines warm and answers rows of the table
`request`.

    python -m workbench.tasks.session_server --workspace DIR --device cpu

One per device. On a GPU it holds the device's lock, and leaves when a queued job needs the device;
the CPU it shares. It leaves after $WORKBENCH_SESSION_IDLE (600) seconds without a request. The
client's half, without torch, is `workspace/session_client.py`; the answers are in
`session_services.py`.
"""

from __future__ import annotations

import argparse
import os
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from ..plugins import load_from_environment
from ..records import BadInput
from ..workspace.model_code import refuse_trust
from ..workspace.processes import device_lock
from ..workspace.session_client import REQUESTS
from ..workspace.store import Store
from ..workspace.worker import TICK, acquire, next_job, seconds
from .session_services import SERVICES, Session


@dataclass(frozen=True)
class Request:
    """A claimed row of the table `request`; spec is JSON."""

    id: int
    kind: str
    spec: str


def serve(store: Store, device: str, lock: int | None = None) -> bool:
    """Answer requests until none comes. Returns False where another session serves the device.

    lock: the session's, where whoever started this process took it for us.
    """
    if lock is None:
        lock = acquire(store, "session", device)
    while lock is not None:
        fail_interrupted(store, device)
        with device_lock(store.workspace, device, wait=lambda: time.sleep(0.5)):
            answer_all(store, device)
        os.close(lock)
        if next_job(store, device) is not None or not is_waiting(store, device):
            return True
        lock = acquire(store, "session", device)
    return False


def fail_interrupted(store: Store, device: str) -> None:
    """Nobody else serves now, so requests that are still running ended with their session."""
    error = "the session ended while it served this; ask again"
    statement = (
        "UPDATE request SET state = 'failed', error = ? WHERE state = 'running' AND device = ?"
    )
    with store.db() as db:
        db.execute(statement, (error, device))


def answer_all(store: Store, device: str) -> None:
    """Answer requests in order until none came for a while, or a queued job needs the GPU."""
    session = Session(store, device)
    last_answer = time.monotonic()
    while time.monotonic() - last_answer < seconds("WORKBENCH_SESSION_IDLE", 600):
        if device != "cpu" and next_job(store, device) is not None:
            return
        request = take(store, device)
        if request is None:
            time.sleep(TICK)
            continue
        answer(session, request)
        last_answer = time.monotonic()


def is_waiting(store: Store, device: str) -> bool:
    """Whether a request is queued."""
    query = "SELECT 1 FROM request WHERE state = 'queued' AND device = ?"
    with store.db(write=False) as db:
        return db.execute(query, (device,)).fetchone() is not None


def take(store: Store, device: str) -> Request | None:
    """Claim the oldest request. Looks first: an idle session must not hold up writers."""
    if not is_waiting(store, device):
        return None
    statement = (
        "UPDATE request SET state = 'running' WHERE id = "
        "(SELECT min(id) FROM request WHERE state = 'queued' AND device = ?) "
        "RETURNING id, kind, spec"
    )
    with store.db() as db:
        row = db.execute(statement, (device,)).fetchone()
    if row is None:
        return None
    return Request(**row)


def answer(session: Session, request: Request) -> None:
    """Serve one request; a fault is its answer, and the session goes on."""
    result = None
    error = None
    state = "failed"
    try:
        spec = REQUESTS[request.kind].model_validate_json(request.spec)
        result = SERVICES[request.kind](session, request.id, spec).model_dump_json()
        state = "done"
    except BadInput as bad_input:
        error = str(bad_input)
    except Exception as fault:
        traceback.print_exc()
        error = f"{type(fault).__name__}: {fault}"
    statement = "UPDATE request SET state = ?, result = ?, error = ? WHERE id = ?"
    with session.store.db() as db:
        db.execute(statement, (state, result, error, request.id))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.tasks.session_server")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--lock", type=int, help="descriptor of the session's lock")
    arguments = parser.parse_args()
    refuse_trust()
    load_from_environment()
    serve(Store(arguments.workspace), arguments.device, arguments.lock)


if __name__ == "__main__":
    main()
