from __future__ import annotations

from tests.tiny_teacher import calls, folder, pipe, teacher

__all__ = ["calls", "folder", "pipe", "teacher"]
