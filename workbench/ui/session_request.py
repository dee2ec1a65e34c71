"""Pictures on demand: a page submits a request to the resident session process and waits for it.

The session keeps models loaded between requests; this side only asks and shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..records import BadInput
from ..workspace import session_client
from ..workspace.session_client import Answer, SamplingRequest
from ..workspace.store import Store
from .access import Access
from .forms import Changes
from .text import duration, notice, problem

Pictures = tuple[str, str]  # files: left, right


@dataclass(frozen=True)
class Pending:
    """A request that a page waits for."""

    number: int
    since: float


def submit(access: Access, kind: str, spec: SamplingRequest, earlier: Pending | None) -> Changes:
    """Submit a request; an earlier one that the page still waits for is withdrawn.

    The page needs the outputs `pending`, `timer` and `message`. Raises BadInput.
    """
    access.check_change()
    if earlier is not None:
        session_client.forget(access.store, earlier.number)
    number = session_client.request(access.store, kind, spec)
    return {
        "pending": Pending(number, time.time()),
        "timer": gr.Timer(active=True),
        "message": notice("Sent to the session process; its first request loads the model."),
    }


def poll(
    store: Store,
    pending: Pending | None,
    show: Callable[[Any], tuple[str, Pictures]],
) -> Changes:
    """What the page shows of its request now.

    `show(result)` gives the message and the pictures; the result is the one of
    `session_client.RESULTS` for that kind of request. The page needs the outputs `pending`,
    `timer`, `message` and `slider`.
    """
    ended: Changes = {"pending": None, "timer": gr.Timer(active=False)}
    if pending is None:
        return {"timer": gr.Timer(active=False)}
    try:
        answer = session_client.result(store, pending.number)
    except BadInput as error:
        return {**ended, "message": problem(str(error))}
    if answer.state == "failed":
        return {**ended, "message": problem(answer.error or "the session gave no reason")}
    if answer.state != "done":
        return {"message": notice(waiting(answer, time.time() - pending.since))}
    message, pictures = show(answer.result)
    return {**ended, "message": message, "slider": gr.ImageSlider(value=pictures, visible=True)}


def waiting(answer: Answer, seconds: float) -> str:
    """What the session is doing, and for how long one has waited."""
    if answer.state != "running":
        activity = (
            "Waiting for the session process: it starts (some seconds the first time), or a job "
            "holds the device"
        )
    else:
        activity = answer.message or "The session has started"
    return f"{activity} … {duration(seconds)}."
