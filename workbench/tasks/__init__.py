"""The verbs, one file each, and what runs them: `launch` here, `__main__` in a job's own process."""

from __future__ import annotations

from .context import Context, Stopped, until
from .launch import check, run

__all__ = ["Context", "Stopped", "check", "run", "until"]
