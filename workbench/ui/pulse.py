"""What is new on disk, for the pages that are open: one small request every second and a half instead
of a timer for each page.

The browser asks (pulse.js) and gets a token for each area of the page that it shows. Only where a
token is another than before, the area's event is run, through Gradio's queue; its handler looks
again and sends what has changed. Tokens are made of names and times of files: nothing is read for
them but the rows of jobs.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..records import BadInput
from ..workspace import jobs
from ..workspace.job_listing import shard_folders
from ..workspace.record_index import KINDS, candidates
from ..workspace.store import Store
from . import catalogue, draft
from .access import Access
from .components import chart

STARTED = uuid.uuid4().hex[:12]  # of this process: a page of a former one loads itself again
CLOCK = 5.0  # seconds after which the times of a running job are news
Tokens = dict[str, str]  # area -> token


class Pulse:
    """The component that asks, and the events of its areas: plan, students, jobs, compare."""

    def __init__(self, store: Store, access: Access):
        self.store = store
        self.access = access
        self.areas: dict[str, Callable[[str], str]] = {
            "plan": self.records_token,
            "students": self.students_token,
            "compare": self.records_token,
            "jobs": self.jobs_token,
        }

    def build(self) -> None:
        def news(question: Any) -> dict[str, Any]:  # Gradio sets an attribute: no bound method
            return self.news(question)

        self.widget = chart({}, "<div></div>", "pulse.js", elem_id="pulse", server_functions=[news])

    def event(self, area: str) -> Any:
        """What runs when an area has news."""
        return getattr(self.widget, area)

    # --- answers ----------------------------------------------------------------------------------

    def news(self, question: object) -> dict[str, Any]:
        """Tokens of the areas that a window shows, and the version of the plan that it edits.

        question: {open, teacher, job}, as a browser sent it. The jobs' token is always there: how a
        job has ended is said on every page.
        """
        sent = question if isinstance(question, dict) else {}
        if not self.access.read_only:
            jobs.wake(self.store)  # queued jobs get a worker
        shown = sent.get("open")
        areas = [area for area in self.areas if isinstance(shown, list) and area in shown]
        job = str(sent.get("job") or "")
        tokens = {area: self.areas[area](job) for area in areas}
        if "jobs" not in tokens:
            tokens["jobs"] = self.states_token()
        version = None
        if "plan" in areas:
            version = self.version(str(sent.get("teacher") or ""))
        return {"app": STARTED, "tokens": tokens, "version": version}

    def version(self, teacher: str) -> int | None:
        """The version of the teacher's plan on disk; None where there is no such teacher."""
        try:
            record = catalogue.teacher(self.store, teacher)
            return draft.load(self.store.workspace, record).version
        except (BadInput, OSError):
            return None

    def records_token(self, _: str = "") -> str:
        """Of all records of the workspace."""
        return token_of([self.kind_of(kind) for kind in KINDS])

    def students_token(self, _: str = "") -> str:
        return token_of(self.kind_of("student"))

    def kind_of(self, kind: str) -> list[Any]:
        """What lies in the folder of a kind."""
        return candidates(KINDS[kind], self.store.workspace / KINDS[kind].folder)

    def states_token(self) -> str:
        """Of the states of all jobs."""
        return token_of([(job.id, job.state) for job in jobs.list_jobs(self.store)])

    def jobs_token(self, selected: str) -> str:
        """Of all that the page of jobs shows, with the log of the selected one."""
        listed = jobs.list_jobs(self.store)
        facts: list[Any] = [(job.model_dump_json(), job.silence) for job in listed]
        for job in listed:
            if job.id != selected:
                continue
            folders = [job.folder, *shard_folders(job.folder)]
            facts += [size_of(folder / "log.txt") for folder in folders]
            if job.state in jobs.ACTIVE:
                facts.append(int(time.time() / CLOCK))
        return token_of(facts)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return int(path.stat().st_size)
    except OSError:
        return 0


def token_of(facts: object) -> str:
    """Equal for equal facts."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
