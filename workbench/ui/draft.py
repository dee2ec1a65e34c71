"""The plan being edited: one file per teacher in the workspace, with its history and a version.

Every window shows the same draft. A change that replaces the whole plan names the version it was
made on, and is refused on an older one, so nobody overwrites what another window did. Edits of
blocks are applied to whatever is on disk (edit_stream.py).
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
WINDOWS = 50  # whose last edit is remembered

Stamp = tuple[int, int, int]  # of a file: time of its change in ns, bytes, inode
READ: dict[Path, tuple[Stamp, Draft]] = {}  # what was read last of each file
MOST_READ = 8


class Stale(BadInput):
    """The change was made on an older version than the one on disk."""


@dataclass(frozen=True)
class Draft:
    """The plan, and those that undo and redo bring back; the next one is last.

    window: the browser window that changed it last. numbers: window -> the number of its last edit,
    so that an edit which arrives twice is applied once.
    """

    plan: Plan
    version: int = 0
    undo: tuple[Plan, ...] = field(default=())
    redo: tuple[Plan, ...] = field(default=())
    window: str = ""
    numbers: tuple[tuple[str, int], ...] = field(default=())

    def to(self, plan: Plan) -> Draft:
        """The next plan; undo brings the present one back. The same plan adds nothing to the history."""
        if plan == self.plan:
            return self
        return replace(self, plan=plan, undo=(*self.undo, self.plan)[-HISTORY:], redo=())

    def edited(self, plan: Plan) -> Draft:
        """`to`, for an edit of blocks: no step either where only the note of its origin changed."""
        if (plan.stacks, plan.modulation) == (self.plan.stacks, self.plan.modulation):
            return self
        return self.to(plan)

    def last_number(self, window: str) -> int:
        """Of the edits of a window; 0 where none is known."""
        return dict(self.numbers).get(window, 0)

    def numbered(self, window: str, number: int) -> Draft:
        """With the last edit of a window remembered."""
        others = tuple(pair for pair in self.numbers if pair[0] != window)
        return replace(self, numbers=(*others, (window, number))[-WINDOWS:])

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
            "window": self.window,
            "numbers": [list(pair) for pair in self.numbers],
        }

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Draft:
        """Read `to_data` back. Raises ValueError, KeyError or TypeError for anything else."""
        return cls(
            plan=Plan.parse(data["plan"], "draft"),
            version=int(data["version"]),
            undo=tuple(Plan.parse(plan, "draft") for plan in data["undo"]),
            redo=tuple(Plan.parse(plan, "draft") for plan in data["redo"]),
            window=str(data.get("window", "")),
            numbers=tuple((str(name), int(last)) for name, last in data.get("numbers", [])),
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
        draft = on_disk(path_of(workspace, teacher))
        return replace(draft, plan=plans.check(draft.plan, teacher))
    except (OSError, ValueError, KeyError, TypeError):
        return Draft(plans.identity(teacher))


def on_disk(path: Path) -> Draft:
    """A file that has not changed is read once: pages look every two seconds, and a long history
    takes a while.
    """
    stamp = stamp_of(path)
    known = READ.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    draft = Draft.parse(jsonfile.read(path, "draft"))
    remember(path, stamp, draft)
    return draft


def remember(path: Path, stamp: Stamp, draft: Draft) -> None:
    """The draft that a file holds while it has this stamp."""
    if len(READ) >= MOST_READ:
        READ.clear()
    READ[path] = (stamp, draft)


def stamp_of(path: Path) -> Stamp:
    """Changes with every write: each is a new file under the old name."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def change(
    workspace: Path,
    teacher: Teacher,
    version: int | None,
    how: Callable[[Draft], Draft],
    window: str = "",
) -> Draft:
    """Apply one change to the draft and write it; one that changes nothing makes no new version.

    version: what the change was made on; None where it suits any. window: who makes it. Raises
    Stale where `version` is not the one on disk, and what `how` raises; the file then stays as it
    was.
    """
    path = path_of(workspace, teacher)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.parent / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        draft = load(workspace, teacher)
        if version not in (None, draft.version):
            raise Stale(
                f"the plan was changed in another window (version {draft.version}, this one "
                f"showed {version})",
                "the latest version",
                "it is shown now: make the change again",
            )
        after = how(draft)
        if after == draft and path.exists():
            return draft
        if replace(after, numbers=draft.numbers) != draft or not path.exists():
            after = replace(after, version=draft.version + 1, window=window)
        write_atomic(path, json.dumps(after.to_data()))
        remember(path, stamp_of(path), after)
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
