"""Surgery: make a student of a plan, in memory for a preview, or on disk for good.

In memory the teacher's module lists are re-wired and its weights shared. On disk the checkpoint is
rewritten tensor by tensor. Both take every weight from `edits.student_tensor`, so they agree bit
for bit where the teacher is loaded in the dtype it is stored in.
"""

from __future__ import annotations

from .export import repair
from .in_memory import applied, prepared, student_transformer
from .on_disk import build
from .student_config import config_changes
from .target import peak_rss_mib

__all__ = [
    "applied",
    "build",
    "config_changes",
    "peak_rss_mib",
    "prepared",
    "repair",
    "student_transformer",
]
