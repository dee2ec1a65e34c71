"""The child process of a job: `python -m workbench.tasks JOBFOLDER [ATTEMPT [NUMBER COUNT]]`, the
last two for one task of a cluster's array.

It needs its folder; the workspace's database may be locked, damaged or full.

Exit code 0: done, or stopped with a checkpoint because somebody asked for it in the job's folder;
75: stopped with a checkpoint by a signal alone, so start me again; 2: bad input, one line in the
log; 1: a fault, its traceback in the log.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from ..plugins import load_from_environment
from ..records import BadInput
from ..workspace import jobs
from ..workspace.cluster.engine_files import shard_folder
from ..workspace.job_end import REQUEUE
from ..workspace.job_files import Outcome, is_full, read_stop, write_outcome, write_result
from ..workspace.job_inputs import check_large_inputs
from ..workspace.model_code import take_trust
from ..workspace.store import Store
from ..workspace.worker import enter
from .context import Stopped
from .launch import conduct, interruptible


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    take_trust(folder)
    load_from_environment()
    with interruptible() as stop:
        store = Store(folder.parents[1])
        enter(store, folder.name)
        job = jobs.of_folder(folder)
        if len(sys.argv) > 2:
            job = job.model_copy(update={"attempt": int(sys.argv[2])})
        part = None
        if len(sys.argv) > 4:
            part = (int(sys.argv[3]), int(sys.argv[4]))
            job = job.model_copy(update={"folder": shard_folder(folder, part[0])})
        print(f"--- {job.kind} {job.id}, attempt {job.attempt}, on {job.device}", flush=True)
        try:
            check_large_inputs(folder)
            result = conduct(
                store,
                job,
                stop,
                lambda progress: None,
                resume=job.attempt > 1 or bool(job.spec.get("resume")),
                part=part,
            )
            if part is not None and any(value is not None for value in result.values()):
                write_result(folder, result)
                write_outcome(folder, Outcome(state="done"))
        except Stopped:
            print("stopped with a checkpoint")
            return 0 if read_stop(folder) else REQUEUE
        except BadInput as error:
            print(error)
            return 2
        except Exception as error:
            if is_full(error):
                print(error)
                return 2
            traceback.print_exc()
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
