"""The plan being edited: one file per teacher in the workspace, with its history and a version.

Every window shows the same draft. A change names the version it was made on; a change made on an
older one is refused, so nobody overwrites what another window did.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import plans
from ..records import BadInput, Plan, Teacher, write_atomic

HISTORY = 100


class Stale(BadInput):
    """The change was made on an older version than the one on disk."""


@dataclass(frozen=True)
class Draft:
    plan: Plan
    version: int = 0
    undo: tuple[Plan, ...] = field(default=())
    redo: tuple[Plan, ...] = field(default=())

    def to(self, plan: Plan) -> Draft:
        """The next plan; the present one can be had back."""
        return replace(self, plan=plan, undo=(*self.undo, self.plan)[-HISTORY:], redo=())

    def back(self) -> Draft:
        if not self.undo:
            raise BadInput("nothing to undo", "an earlier change", "mark some blocks")
        return replace(self, plan=self.undo[-1], undo=self.undo[:-1], redo=(*self.redo, self.plan))

    def forth(self) -> Draft:
        if not self.redo:
            raise BadInput("nothing to redo", "an undone change", "undo first")
        return replace(self, plan=self.redo[-1], undo=(*self.undo, self.plan), redo=self.redo[:-1])


def path_of(workspace: Path, teacher: Teacher) -> Path:
    """Named by the weights, or by the structure where only a config was read."""
    name = teacher.fingerprint or teacher.digest
    safe = (
        "".join(c for c in name if c.isalnum())[:32] + hashlib.sha256(name.encode()).hexdigest()[:6]
    )
    return workspace / "drafts" / f"{safe}.json"


def load(workspace: Path, teacher: Teacher) -> Draft:
    """The draft on disk; the identity plan where there is none, or none that fits this teacher."""
    try:
        data: dict[str, Any] = json.loads(path_of(workspace, teacher).read_text(encoding="utf-8"))
        past = {key: tuple(Plan.parse(p, "draft") for p in data[key]) for key in ("undo", "redo")}
        draft = Draft(Plan.parse(data["plan"], "draft"), int(data["version"]), **past)
        plans.check(draft.plan, teacher)
        return draft
    except (OSError, ValueError, KeyError, TypeError):
        return Draft(plans.identity(teacher))


def change(workspace: Path, teacher: Teacher, version: int, how: Callable[[Draft], Draft]) -> Draft:
    """Apply one change to the draft and write it.

    Raises Stale where `version` is not the one on disk, and what `how` raises; the file is then as
    it was.
    """
    path = path_of(workspace, teacher)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = load(workspace, teacher)
        if version != draft.version:
            raise Stale(
                f"the plan was changed in another window (version {draft.version}, this "
                f"one showed {version})",
                "the latest version",
                "it is shown now: make the change again",
            )
        after = replace(how(draft), version=draft.version + 1)
        data = {
            "version": after.version,
            "plan": after.plan.as_yaml(),
            "undo": [p.as_yaml() for p in after.undo],
            "redo": [p.as_yaml() for p in after.redo],
        }
        write_atomic(path, json.dumps(data))
    return after


def latest(workspace: Path) -> str | None:
    """The teacher whose draft was changed last."""
    files = sorted(
        (workspace / "drafts").glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    for file in files[:1]:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["plan"]["teacher"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    return None
