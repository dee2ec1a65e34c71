"""The plan being edited: one file per teacher in the workspace, with its history and a version.

Every window shows the same draft. A change names the version it was made on; a change made on an
older one is refused, so nobody overwrites what another window did.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import plans
from ..records import BadInput, Plan, Teacher, jsonfile, write_atomic

HISTORY = 100


class Stale(BadInput):
    """The change was made on an older version than the one on disk."""


@dataclass(frozen=True)
class Draft:
    """The plan, and those that undo and redo bring back; the next one is last."""

    plan: Plan
    version: int = 0
    undo: tuple[Plan, ...] = field(default=())
    redo: tuple[Plan, ...] = field(default=())

    def to(self, plan: Plan) -> Draft:
        """The next plan; undo brings the present one back."""
        return replace(self, plan=plan, undo=(*self.undo, self.plan)[-HISTORY:], redo=())

    def back(self) -> Draft:
        """Undo. Raises BadInput where nothing was changed."""
        if not self.undo:
            raise BadInput("nothing to undo", "an earlier change", "mark some blocks")
        return replace(self, plan=self.undo[-1], undo=self.undo[:-1], redo=(*self.redo, self.plan))

    def forth(self) -> Draft:
        """Redo. Raises BadInput where nothing was undone."""
        if not self.redo:
            raise BadInput("nothing to redo", "an undone change", "undo first")
        return replace(self, plan=self.redo[-1], undo=(*self.undo, self.plan), redo=self.redo[:-1])

    def to_data(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "plan": self.plan.as_yaml(),
            "undo": [plan.as_yaml() for plan in self.undo],
            "redo": [plan.as_yaml() for plan in self.redo],
        }

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Draft:
        """Read `to_data` back. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            plan=Plan.parse(data["plan"], "draft"),
            version=int(data["version"]),
            undo=tuple(Plan.parse(plan, "draft") for plan in data["undo"]),
            redo=tuple(Plan.parse(plan, "draft") for plan in data["redo"]),
        )


def path_of(workspace: Path, teacher: Teacher) -> Path:
    """Named by the weights, or by the structure where only a config was read."""
    name = teacher.fingerprint or teacher.digest
    letters = "".join(letter for letter in name if letter.isalnum())
    digest = hashlib.sha256(name.encode()).hexdigest()
    return workspace / "drafts" / f"{letters[:32]}{digest[:6]}.json"


def load(workspace: Path, teacher: Teacher) -> Draft:
    """The draft on disk; the identity plan where there is none, or none that fits this teacher."""
    try:
        data = jsonfile.read(path_of(workspace, teacher), "draft")
        draft = Draft.parse(data)
        return replace(draft, plan=plans.check(draft.plan, teacher))
    except (OSError, ValueError, KeyError, TypeError):
        return Draft(plans.identity(teacher))


def change(workspace: Path, teacher: Teacher, version: int, how: Callable[[Draft], Draft]) -> Draft:
    """Apply one change to the draft and write it.

    Raises Stale where `version` is not the one on disk, and what `how` raises; the file then stays
    as it was.
    """
    path = path_of(workspace, teacher)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = load(workspace, teacher)
        if version != draft.version:
            raise Stale(
                f"the plan was changed in another window (version {draft.version}, this one "
                f"showed {version})",
                "the latest version",
                "it is shown now: make the change again",
            )
        after = replace(how(draft), version=draft.version + 1)
        write_atomic(path, json.dumps(after.to_data()))
    return after


def seconds_since_change(workspace: Path, teacher: Teacher) -> float:
    """Since the draft was written; infinite where there is none."""
    try:
        return time.time() - path_of(workspace, teacher).stat().st_mtime
    except OSError:
        return math.inf


def latest(workspace: Path) -> str | None:
    """The name of the teacher whose draft was changed last."""
    files = list((workspace / "drafts").glob("*.json"))
    if not files:
        return None
    newest = max(files, key=lambda path: path.stat().st_mtime)
    try:
        return str(jsonfile.read(newest, "draft")["plan"]["teacher"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
