"""The blocks that metric recovery trains: one candidate per run of neighbouring blocks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..families import StackRow
from ..models.blocks import Block
from ..records import BadInput, Init, Span
from ..training.targets import Target, streams_read
from .results import Key
from .scan import Scan

INITS: tuple[Init, ...] = ("first", "mean")
BYTES_PER_PARAMETER = 8  # while it is trained: weights and momentum in float32


@dataclass(eq=False)
class Candidate:
    """One block that could replace blocks first..last of a stack.

    target: what it learns. starts: the inits and gains it could start with; start: the one chosen.
    start_losses: the loss of each start before training.
    """

    target: Target
    row: StackRow
    starts: list[Span]
    parameters: int
    start_losses: list[float] = field(default_factory=list)
    start: Span = field(init=False)

    def __post_init__(self) -> None:
        self.start = self.starts[0]

    @property
    def stack(self) -> str:
        return self.target.place[0]

    @property
    def first(self) -> int:
        return self.target.fed[1]

    @property
    def last(self) -> int:
        return self.target.goal[1]

    def key(self, edit: str) -> Key:
        """Its name among the scores."""
        return Key(self.stack, self.first, edit, self.last)

    @property
    def training_bytes(self) -> int:
        return BYTES_PER_PARAMETER * self.parameters

    def choose_start(self) -> None:
        """Take the start with the least finite loss; the first of equals."""
        finite = [loss if math.isfinite(loss) else math.inf for loss in self.start_losses]
        self.start = self.starts[finite.index(min(finite))]


def candidates(scan: Scan, longest: int) -> list[Candidate]:
    """Every run of 2..`longest` blocks of one shape without a pinned block, in the order of the
    model. Raises BadInput where there is none.
    """
    found = []
    for path in dict.fromkeys(path for path, _ in scan.blocks):
        for first, last in runs(scan, path, longest):
            found.append(candidate(scan, path, first, last))
    if not found:
        raise BadInput(
            "no two neighbouring blocks that one block could replace",
            "blocks of one shape that are not pinned",
            "choose another metric",
        )
    return found


def runs(scan: Scan, path: str, longest: int) -> Iterator[tuple[int, int]]:
    """(first, last) of every run of 2..`longest` blocks that one block could replace."""
    depth = len(scan.stack(path))
    pinned = scan.replay.blocks[path, 0].row.pinned_in(depth)
    for first in range(depth):
        if first in pinned:
            continue
        for last in range(first + 1, min(first + longest, depth)):
            if last in pinned or scan.shapes[path, last] != scan.shapes[path, first]:
                break
            yield first, last


def candidate(scan: Scan, path: str, first: int, last: int) -> Candidate:
    """One block in place of blocks first..last, which could start from several inits and gains."""
    block: Block = scan.replay.blocks[path, first]
    target = Target(
        place=(path, first),
        fed=(path, first),
        goal=(path, last),
        streams=streams_read(block.row, last, len(scan.stack(path))),
        label=f"one block for {first}-{last} of {path}",
    )
    gains = [1.0]
    if scan.blocks[path, first].row.gain:
        gains.append(float(last - first + 1))
    starts = []
    for init in INITS:
        starts += [Span(blocks=(first, last), init=init, gain=gain) for gain in gains]
    parameters = sum(p.numel() for p in block.module.parameters())
    return Candidate(target, block.row, starts, parameters)


def waves(found: Sequence[Candidate], bytes_at_once: int) -> list[list[Candidate]]:
    """Candidates in their order, as many at once as have room; one at least."""
    groups: list[list[Candidate]] = []
    used = 0
    for one in found:
        if not groups or used + one.training_bytes > bytes_at_once:
            groups.append([])
            used = 0
        groups[-1].append(one)
        used += one.training_bytes
    return groups
