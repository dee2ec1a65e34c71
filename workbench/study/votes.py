"""Votes on disk: one line each, appended and synced before the rater sees the next item.

A process that is killed while it writes leaves at most half a line, of a vote that was never
confirmed: readers pass over it, and the next line begins on its own.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..records import BadInput, Seat, Vote, jsonfile

FILE = "votes.jsonl"
LOCK = ".serving"


@dataclass
class Ballots:
    """What is in a study's file. votes: (rater, position) -> vote; the first one counts. unread:
    damaged lines.
    """

    seats: dict[int, Seat] = field(default_factory=dict)
    votes: dict[tuple[int, int], Vote] = field(default_factory=dict)
    unread: int = 0

    def add(self, line: Seat | Vote) -> None:
        if isinstance(line, Seat):
            self.seats.setdefault(line.rater, line)
        else:
            self.votes.setdefault((line.rater, line.position), line)

    def of_rater(self, rater: int) -> list[Vote]:
        """A rater's votes in order."""
        return [vote for (number, _), vote in sorted(self.votes.items()) if number == rater]


def read(folder: Path) -> Ballots:
    """All votes of a study; none where nobody has voted yet. Raises BadInput for an unreadable
    file.
    """
    ballots = Ballots()
    try:
        data = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return ballots
    except OSError as error:
        found = f"{folder / FILE} cannot be read ({error.strerror})"
        raise BadInput(found, "a file of votes", "check the path") from None
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            ballots.add(parsed(line))
        except (BadInput, jsonfile.JSONError):
            ballots.unread += 1
    return ballots


def parsed(line: bytes) -> Seat | Vote:
    record: Any = jsonfile.parse(line)
    if isinstance(record, dict) and record.get("event") == "seat":
        return Seat.parse(record, FILE)
    return Vote.parse(record, FILE)


class BallotBox:
    """The file of votes, open for appending. One process at a time: raises BadInput where another
    one serves the study.
    """

    def __init__(self, folder: Path) -> None:
        self.lock = open(folder / LOCK, "w")  # noqa: SIM115  (held until the process ends)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            raise BadInput(
                f"{folder} is being served by another process",
                "a study that nobody serves",
                "use that one, or stop it",
            ) from None
        self.ballots = read(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self.descriptor = os.open(folder / FILE, flags, 0o600)
        self.end_line()

    def end_line(self) -> None:
        """Close the half line that a killed process left."""
        size = os.fstat(self.descriptor).st_size
        if size and os.pread(self.descriptor, 1, size - 1) != b"\n":
            os.write(self.descriptor, b"\n")

    def append(self, line: Seat | Vote) -> None:
        """Save a line: it is on the disk when this returns. Raises OSError for a full disk."""
        data = line.model_dump_json(exclude_none=True).encode() + b"\n"
        try:
            written = os.write(self.descriptor, data)
            if written < len(data):  # the disk is full: the vote is not confirmed
                raise OSError(28, "No space left on device")
        except OSError:
            self.end_line()
            raise
        os.fsync(self.descriptor)
        self.ballots.add(line)

    def close(self) -> None:
        os.close(self.descriptor)
        self.lock.close()
