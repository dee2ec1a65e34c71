"""The state of a job that an engine runs: its own word first, then what the engine says."""

from __future__ import annotations

from pathlib import Path

from ...records import State
from ..job_end import ended_state, with_tail
from ..job_files import Outcome, read_outcome, read_stop
from ..job_rows import JobRow
from .engine_files import Answer, read_answer, read_start

CANCELLED = ("CANCELLED", "REVOKED")  # by somebody who asked the engine, not us


def derive(row: JobRow, folder: Path) -> tuple[State, str]:
    """(state, error) of a job; as `job_state.derive` for those of this machine.

    A job that stopped without being asked for it was preempted, or met its time limit: where the
    engine still has it, it waits for its next attempt.
    """
    if row.state != "running":
        return row.state, row.error or ""
    stop = row.stop or read_stop(folder)
    outcome = read_outcome(folder)
    if has_ended(folder, outcome, stop):
        return ended_state(folder, stop, None)
    answer = read_answer(folder)
    if row.engine_id is None:
        return unsent(row)
    if answer is None:
        return "queued", ""
    began = has_begun_since(answer, folder)
    if answer.state == "waiting" and not began:
        return "queued", answer.silent or answer.reason
    if answer.state in ("waiting", "running"):
        if stop:
            return "stopping", answer.silent
        return "running", answer.silent
    return after_its_end(row, folder, answer, stop)


def has_ended(folder: Path, outcome: Outcome | None, stop: str | None) -> bool:
    """Whether the job itself says that nothing more will come."""
    if (folder / "result.json").exists():
        return True
    if outcome is None:
        return False
    return outcome.state != "stopped" or stop is not None


def has_begun_since(answer: Answer, folder: Path) -> bool:
    """Whether a node has begun the job after the engine gave this answer. Such a job is not
    withdrawn like one that waits: it is asked to stop, and writes its checkpoint.
    """
    start = read_start(folder)
    return start is not None and start.time > answer.asked


def unsent(row: JobRow) -> tuple[State, str]:
    """A job that the engine has not got: whoever submitted it was killed in that moment, or is
    doing it now.
    """
    return "queued", f"{row.engine} has not got it yet; if it stays so, cancel and resume it"


def after_its_end(row: JobRow, folder: Path, answer: Answer, stop: str | None) -> tuple[State, str]:
    """How a job ended that the engine no longer runs."""
    state, error = ended_state(folder, stop, None)
    if state != "lost":
        return state, error
    if answer.word.startswith(CANCELLED):
        return "cancelled", f"{row.engine} says {answer.word}: it was cancelled there"
    if answer.state == "gone":
        return "lost", with_tail(f"{row.engine} does not know job {row.engine_id} any more", folder)
    reason = f"{row.engine} says {answer.word}"
    if answer.reason not in ("", "None", answer.word):
        reason += f" ({answer.reason})"
    return "failed", with_tail(f"{reason}, and the job left no result", folder)
