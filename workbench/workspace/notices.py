"""Telling somebody elsewhere that a job has ended: a POST to $WORKBENCH_WEBHOOK.

    python -m workbench.workspace.notices JOBFOLDER

A process of its own sends it, so that a webhook that is slow or dead holds up neither the job nor
its worker; what went wrong is in jobs/.notices.log.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..records import State
from .job_listing import Job, of_folder
from .processes import start_detached

ENDS: tuple[State, ...] = ("done", "failed", "lost")  # the others somebody has asked for
PATIENCE = 15.0  # seconds for an answer
MOST = 2000  # characters of an error


def notify(folder: Path, state: State) -> None:
    """Report a job's end where a webhook is set; never raises."""
    if state not in ENDS or not os.environ.get("WORKBENCH_WEBHOOK"):
        return
    with suppress(OSError):
        log = folder.parent / ".notices.log"
        start_detached(["-m", __name__, str(folder)], log, fresh_log=True)


def sentence(job: Job) -> str:
    """One line for a person."""
    text = f"{job.title} (job {job.id}) is {job.state}"
    if job.error:
        text += f": {job.error.splitlines()[0]}"
    return text


def message(job: Job) -> dict[str, Any]:
    """What is sent. text, content: the sentence, under the names that chat services read."""
    seconds = None
    if job.started and job.ended:
        seconds = round(job.ended - job.started, 1)
    return {
        "text": sentence(job),
        "content": sentence(job),
        "job": job.id,
        "kind": job.kind,
        "title": job.title,
        "state": job.state,
        "error": job.error[:MOST],
        "seconds": seconds,
        "folder": str(job.folder),
    }


def post(url: str, data: dict[str, Any]) -> None:
    """Raises OSError where nobody takes it, ValueError for another kind of address."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"WORKBENCH_WEBHOOK is {url!r}; expected http:// or https://")
    headers = {"Content-Type": "application/json", "User-Agent": "dit-workbench"}
    request = urllib.request.Request(url, json.dumps(data).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE):
        pass


def main() -> int:
    try:
        post(os.environ["WORKBENCH_WEBHOOK"], message(of_folder(Path(sys.argv[1]))))
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"the webhook did not take the notice ({error})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
