"""One scan as the tasks of a cluster's array: each measures its share of the calls and leaves its
scores in the job's folder; the task that finds all of them there makes the map.

So no task waits for another, and a task that failed is repeated alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import Progress, jsonfile, write_atomic
from ..sensitivity.results import CallScores, Key
from ..specs import ProfileSpec
from .context import Context
from .profile import profile
from .profile_shards import Share


class NotLast(Exception):
    """Other tasks have still to measure their shares."""


@dataclass(frozen=True)
class ArrayShare(Share):
    """A task's part of a scan. Whichever task comes last saves the map."""

    @property
    def first(self) -> bool:
        return True


@dataclass(frozen=True)
class ScoreFiles:
    """The scores of all tasks, as files of one folder.

    One folder: whoever makes a file in it sees those that were made before, on NFS too.
    """

    folder: Path
    number: int
    count: int

    def gather(self, finished: list[CallScores]) -> list[CallScores]:
        """Leave this task's scores, and return everyone's. Raises NotLast where some are missing."""
        write_atomic(self.file(self.number), json.dumps([to_data(call) for call in finished]))
        found: list[CallScores] = []
        for number in range(self.count):
            try:
                rows = jsonfile.parse(self.file(number).read_text(encoding="utf-8"))
            except FileNotFoundError:
                raise NotLast from None
            found += [from_data(row) for row in rows]
        return found

    def file(self, number: int) -> Path:
        return self.folder / f"scores-{number}.json"


def to_data(call: CallScores) -> dict[str, Any]:
    """A call's scores as plain data; JSON keeps every bit of a float."""
    data = dict(vars(call))
    data["scores"] = [[*key, values] for key, values in call.scores.items()]
    return data


def from_data(data: dict[str, Any]) -> CallScores:
    scores = {Key(*fields): values for *fields, values in data["scores"]}
    return CallScores(**{**data, "scores": scores, "prompts": tuple(data["prompts"])})


def profile_part(
    spec: ProfileSpec, context: Context, number: int, count: int
) -> Iterator[Progress]:
    """Task `number` of `count`. The last Progress has the result of the whole scan, or None as its
    result's "map" where other tasks are not done yet.
    """
    assert context.folder is not None
    files = ScoreFiles(context.folder.parent, number, count)
    share = ArrayShare(number, count, files.gather)
    one = spec.model_copy(update={"processes": 1})
    last = Progress(step=0, total=1)
    try:
        for progress in profile(one, context, share):
            last = progress
            if progress.result is not None:
                result = {**progress.result, "processes": count}
                progress = progress.model_copy(update={"result": result})
            yield progress
    except NotLast:
        yield Progress(step=last.step, total=last.step, message="done", result={"map": None})
