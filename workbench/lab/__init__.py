"""Notebook widgets on the app's own charts: maps, plans, jobs, comparisons. They work offline.

    from workbench import lab
    lab.block(sensitivity, teacher, 12)               # one block over the timesteps and by part
    editor = lab.sensitivity(sensitivity, teacher)    # click or drag on the map; keep, drop, merge
    editor.plan                                       # the plan as it is now

Arguments are records or their files. Every function raises BadInput for input that the user can
fix.
"""

from __future__ import annotations

from .comparing import Viewer, compare
from .editor import Editor, budget_words
from .maps import block, correlation, difference, edits, recovery, sensitivity, stability
from .plan_picture import picture
from .watching import Watcher, watch

__all__ = [
    "Editor",
    "Viewer",
    "Watcher",
    "block",
    "budget_words",
    "compare",
    "correlation",
    "difference",
    "edits",
    "picture",
    "recovery",
    "sensitivity",
    "stability",
    "watch",
]
