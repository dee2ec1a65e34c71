"""Whether a job may run code that lies in a model's folder: whoever queues it says so.

The variable WORKBENCH_TRUST_REMOTE_CODE belongs to the process in which a person typed a command.
A worker serves jobs of others too, so it does not count there: the job's folder says whether it was
queued with it. The app removes it from its own environment (ui/app.py).
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "WORKBENCH_TRUST_REMOTE_CODE"
MARK = "trusts-model-code"  # an empty file in the job's folder


def note_trust(folder: Path) -> None:
    """Write into a job's folder whether this process trusts the code of models; a later start of
    the job by a process that does not leaves it as it is.
    """
    if os.environ.get(VARIABLE) == "1":
        (folder / MARK).touch()


def take_trust(folder: Path) -> None:
    """In the job's own process, and for those that it starts: as its folder says."""
    os.environ.pop(VARIABLE, None)
    if (folder / MARK).exists():
        os.environ[VARIABLE] = "1"


def refuse_trust() -> None:
    """Model code never runs in this process or in one that it starts."""
    os.environ.pop(VARIABLE, None)
