"""One process behind the first of a distillation: the same loop on its part of every batch.

`workbench distill --processes N` starts these on this machine, and node_worker on the other nodes of
a cluster. Elsewhere any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT runs `python -m workbench.tasks.rank_worker
REQUEST.json` for the ranks behind the first.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ..distillation.processes import Processes, joined
from ..plugins import load_plugin
from ..records import DistillSpec
from ..specs import DistillVerbSpec
from ..workspace.store import Store
from .context import Context
from .distill_watch import gathered_state, is_due
from .distill_work import DistillWork
from .rank_processes import PARENT, device_of, die_with_parent, ready_file
from .rank_request import RankRequest


def follow(request: RankRequest, context: Context, processes: Processes) -> None:
    """Run the loop until the first process has ended it."""
    spec = DistillVerbSpec.parse(request.spec)
    stages = DistillSpec.parse(request.stages, "the first process's stages")
    work = DistillWork.of(spec, context, stages)
    work.load(context, request.sets())
    for progress in work.run(context, request.resume, processes):
        if is_due(work, progress, context, processes):
            gathered_state(work, processes)


def main() -> None:
    """Stops when the first process says so; signals to the whole group are for that one."""
    if PARENT in os.environ:  # not under a launcher, which is not a parent of the first
        die_with_parent(int(os.environ[PARENT]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    file = Path(sys.argv[1])
    request = RankRequest.load(file)
    for plugin in request.plugins:
        load_plugin(plugin)
    rank = int(os.environ["RANK"])
    device = device_of(request.device, int(os.environ.get("LOCAL_RANK", rank)))
    ready_file(file.parent, rank).touch()
    context = Context(Store(request.workspace), device, resume=request.resume)
    with joined(rank, request.world, request.address, device, sharded=request.shard) as processes:
        follow(request, context, processes)


if __name__ == "__main__":
    main()
