"""One node behind the first of a job on a cluster: starts this node's processes of a distillation.

Started by workspace.cluster.on_node, which ends it when the job is over.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ..workspace.cluster.nodes import write_lost
from .rank_processes import Rank, failed, how_it_ended, start
from .rank_request import RankRequest

PAUSE = 0.2  # seconds between two looks


def request_of(file: Path, attempt: int) -> RankRequest:
    """The first process's request of this attempt, once it is there."""
    while True:
        if file.exists():
            request = RankRequest.load(file)
            if request.attempt == attempt:
                return request
        time.sleep(PAUSE)


def ranks_of(request: RankRequest, node: int) -> range:
    """The numbers of a node's processes."""
    return range(node * request.per_node, (node + 1) * request.per_node)


def follow(ranks: list[Rank], request: RankRequest, folder: Path) -> None:
    """Wait for the processes; report the first that fails to the first node."""
    while any(rank.child.poll() is None for rank in ranks):
        lost = [rank for rank in ranks if failed(rank)]
        if lost:
            break
        time.sleep(PAUSE)
    for rank in ranks:
        if failed(rank):
            what = how_it_ended(rank, request.world)
            write_lost(folder, request.attempt, str(rank.number), what)


def main() -> None:
    folder, attempt, node = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    file = folder / "ranks.json"
    request = request_of(file, attempt)
    ranks = [start(file, rank, request) for rank in ranks_of(request, node)]
    try:
        follow(ranks, request, folder)
        for rank in ranks:
            rank.child.wait()  # the others end when they miss the one that is lost
    finally:
        for rank in ranks:
            rank.child.kill()


if __name__ == "__main__":
    main()
