"""The command line. `commands` makes one command per verb from its spec; `run` runs or queues it."""

from __future__ import annotations

from .main import main, run

__all__ = ["main", "run"]
