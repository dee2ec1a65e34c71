"""The command line: one command per verb, made from its spec (`commands`)."""

from __future__ import annotations

from .main import main, run

__all__ = ["main", "run"]
