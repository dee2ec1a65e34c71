"""How a job ended, from what its folder says, in words."""

from __future__ import annotations

import signal
from pathlib import Path

from ..records import State
from .job_files import read_exit_code, read_outcome, read_stop
from .job_log import tail

TAIL_LINES = 12
REQUEUE = 75  # the exit code of a job that stopped with a checkpoint and wants to go on


def ended_state(folder: Path, stop: str | None, code: int | None) -> tuple[State, str]:
    """(state, error) of a job whose process is gone.

    stop: "pause" or "cancel" where that was asked for. code: the exit status where its worker saw
    it, negative for a signal. The work's own word comes first: a job whose result is there is done.
    A pause counts as paused only where the job itself says that it stopped, since only then is its
    checkpoint whole.
    """
    if code is None:
        code = read_exit_code(folder)
    stop = stop or read_stop(folder)
    outcome = read_outcome(folder)
    word = None
    if outcome is not None:
        word = outcome.state
        if word == "failed":
            return "failed", with_tail(outcome.error or "failed", folder, outcome.expected)
    if (folder / "result.json").exists():
        return "done", ""
    if word == "stopped" and stop == "cancel":
        return "cancelled", ""
    if word == "stopped":  # also when the machine shut down
        return "paused", ""
    if stop == "cancel":
        return "cancelled", ""  # by force, after the grace time
    state: State = "failed"
    reason = exit_reason(code)
    if code is None:
        state = "lost"
    if stop == "pause":
        reason += ", after a pause was requested and before its checkpoint was written"
    return state, with_tail(reason, folder)


def exit_reason(code: int | None) -> str:
    """How a process ended that left no outcome, in words."""
    if code is None:
        return "the process ended without a trace (killed, out of memory, or the machine restarted)"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit code {code} without a result"


def with_tail(reason: str, folder: Path, expected: bool = False) -> str:
    """The reason and, unless it says all there is to say, the log's last lines."""
    if expected:
        return reason
    return "\n".join([reason, *tail(folder / "log.txt", TAIL_LINES)])
