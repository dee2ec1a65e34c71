"""The state of a job, derived from its process and its folder; its row alone is not trusted."""

from __future__ import annotations

from pathlib import Path

from ..records import State
from .cluster import engine_state
from .job_end import ended_state
from .job_files import read_stop
from .job_rows import JobRow
from .processes import alive

ACTIVE: tuple[State, ...] = ("queued", "running", "stopping")
RESUMABLE: tuple[State, ...] = ("paused", "failed", "cancelled", "lost")


def derive(row: JobRow, folder: Path) -> tuple[State, str]:
    """(state, error) of a job. Where the row says running and no such process runs, the folder says
    how it ended.
    """
    if row.engine is not None:
        return engine_state.derive(row, folder)
    if row.state != "running":
        return row.state, row.error or ""
    stop = row.stop or read_stop(folder)
    if alive(row.process):
        if stop:
            return "stopping", ""
        return "running", ""
    state, error = ended_state(folder, stop, None)
    if state == "lost" and alive(row.keeper_process):
        return "stopping", ""  # its worker saw it end and is about to write down how
    return state, error
