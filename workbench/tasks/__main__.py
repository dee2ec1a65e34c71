"""The child process of a job: `python -m workbench.tasks JOBFOLDER [ATTEMPT]`.

It needs its folder; the workspace's database may be locked, damaged or full.

Exit code 0: done, or stopped with a checkpoint; 2: bad input, one line in the log; 1: a fault, its
traceback in the log.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from ..plugins import load_from_environment
from ..records import BadInput
from ..workspace import jobs
from ..workspace.job_files import is_full
from ..workspace.store import Store
from ..workspace.worker import enter
from .context import Stopped
from .launch import conduct, interruptible


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    load_from_environment()
    with interruptible() as stop:
        store = Store(folder.parents[1])
        enter(store, folder.name)
        job = jobs.of_folder(folder)
        if len(sys.argv) > 2:
            job = job.model_copy(update={"attempt": int(sys.argv[2])})
        print(f"--- {job.kind} {job.id}, attempt {job.attempt}, on {job.device}", flush=True)
        try:
            conduct(
                store,
                job,
                stop,
                lambda progress: None,
                resume=job.attempt > 1 or bool(job.spec.get("resume")),
            )
        except Stopped:
            print("stopped with a checkpoint")
            return 0
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
