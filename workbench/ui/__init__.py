"""The app: three pages over one workspace.

It opens without torch, holds no model, and survives whatever a job does.
"""

from __future__ import annotations

from . import privacy as _privacy  # noqa: F401  (first: gradio reads these switches when imported)
from .app import build, launch

__all__ = ["build", "launch"]
