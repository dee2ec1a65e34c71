"""The files of a job's folder that concern its engine.

cluster.yaml    what the job asks of the cluster
engine.json     what the engine said last, written by whoever asked it
start.json      the attempt that runs, written by the node
cluster/        the engine's own files: the script, the output of the process that waits for the job
shards/<n>/     what one task of an array writes: log.txt, progress.json, start.json ..
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ...records import write_atomic
from ...records.record import Record
from ..job_files import ProgressState, read_json, read_progress


class Answer(Record):
    """What an engine says of a job.

    state: as we count it; "gone" where the engine does not know the job. word: as the engine calls
    it. reason: why it waits or ended. asked: when, in seconds since the epoch. silent: why the
    engine does not answer, where it does not; the rest is then what it said before.
    """

    state: Literal["waiting", "running", "ended", "gone"]
    word: str = ""
    reason: str = ""
    asked: float = 0.0
    silent: str = ""


class Start(Record):
    """The attempt that a node has begun. time: seconds since the epoch. attempts count from 1."""

    attempt: int
    time: float
    node: str = ""


def read_answer(folder: Path) -> Answer | None:
    try:
        return Answer.model_validate(read_json(folder / "engine.json"))
    except ValidationError:
        return None


def write_answer(folder: Path, answer: Answer) -> None:
    write_atomic(folder / "engine.json", answer.model_dump_json() + "\n")


def read_start(folder: Path) -> Start | None:
    """The last attempt that began; of an array the first of its tasks' last attempts."""
    starts = []
    for file in [folder / "start.json", *(folder / "shards").glob("*/start.json")]:
        try:
            starts.append(Start.model_validate(read_json(file)))
        except ValidationError:
            continue
    return min(starts, key=lambda start: start.time, default=None)


def write_start(folder: Path, start: Start) -> None:
    write_atomic(folder / "start.json", start.model_dump_json() + "\n")


def shard_folder(folder: Path, number: int) -> Path:
    """Where one task of an array writes."""
    return folder / "shards" / str(number)


def shard_folders(folder: Path) -> list[Path]:
    """The folders of an array's tasks in their order; none for other jobs."""
    found = [path for path in (folder / "shards").glob("*") if path.name.isdecimal()]
    return sorted(found, key=lambda path: int(path.name))


def joint_progress(folder: Path) -> ProgressState:
    """How far a job is; an array is as far as its tasks together."""
    shards = shard_folders(folder)
    if not shards:
        return read_progress(folder)
    states = [read_progress(shard) for shard in shards]
    begun = [state for state in states if state.total]
    return ProgressState(
        step=sum(state.step for state in states),
        total=sum(state.total for state in states),
        message=f"{len(begun)} of {len(shards)} tasks have begun",
        time=max(state.time for state in states),
    )
