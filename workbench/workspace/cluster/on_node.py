"""What runs on a cluster's node: starts the job's process, watches it, and has it requeued.

The node needs the job's folder alone. The workspace's database stays with the front ends: file locks
do not work on every shared folder.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..database import FOLDERS_ONLY
from ..job_end import REQUEUE, exit_reason
from ..job_files import Outcome, read_outcome, read_stop, write_exit_code, write_outcome
from ..processes import ProcessIdentity, alive, identity, kill, start_attached, terminate
from ..worker import StopClock
from .engine_files import Start, shard_folder, write_start
from .nodes import Nodes, node_number, over_file, write_lost

LEFT = 10.0  # seconds of the notice that are kept for the requeue itself
GRACE = 30.0  # seconds for a node's processes to end after the job


class RunJob:
    """A job, or one task of its array, as submitit calls it on the node.

    first: the number of the attempt that begins when Slurm starts the job for the first time.
    notice: seconds between the signal and the time limit. shard: (number, count) of an array's
    task, None for a whole job.
    """

    def __init__(
        self, folder: Path, first: int, notice: float, shard: tuple[int, int] | None = None
    ) -> None:
        self.folder = folder
        self.first = first
        self.notice = notice
        self.shard = shard
        self.child: ProcessIdentity | None = None

    def part(self, number: int, count: int) -> RunJob:
        """The job as one task of an array."""
        return RunJob(self.folder, self.first, self.notice, (number, count))

    @property
    def own_folder(self) -> Path:
        """Where this process writes: an array's tasks have a folder each."""
        if self.shard is None:
            return self.folder
        return shard_folder(self.folder, self.shard[0])

    def __call__(self) -> int:
        """Run the job to its end; raises RuntimeError where it failed, so that Slurm says so too.

        On the other nodes of a job of several: run their part of its processes.
        """
        os.environ[FOLDERS_ONLY] = "1"
        attempt = self.first + int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        if node_number() > 0:
            return self.serve(attempt, node_number())
        self.own_folder.mkdir(parents=True, exist_ok=True)
        write_start(
            self.own_folder, Start(attempt=attempt, time=time.time(), node=socket.gethostname())
        )
        command = ["-m", "workbench.tasks", str(self.folder), str(attempt)]
        if self.shard is not None:
            number, count = self.shard
            command += [str(number), str(count)]
        os.environ.update(Nodes.of_slurm(attempt).variables)
        child = start_attached(command, self.own_folder / "log.txt")
        self.child = identity(child.pid)
        code = self.wait(child)
        write_exit_code(self.own_folder, code)
        over_file(self.folder, attempt).touch()
        if self.shard is not None:
            self.speak_for_the_job(code)
        if code == REQUEUE and read_stop(self.folder) is None:  # preempted by SIGTERM alone
            requeue_while_it_runs(self.own_folder)
        elif code not in (0, REQUEUE):
            raise RuntimeError(
                f"the job ended with exit code {code}; see {self.own_folder}/log.txt"
            )
        elif read_stop(self.folder) is not None and not self.is_done():
            raise RuntimeError("the job was asked to stop: what follows it must not begin")
        return code

    def is_done(self) -> bool:
        """Whether the job has its result, whatever it was asked."""
        return (self.own_folder / "result.json").exists()

    def serve(self, attempt: int, node: int) -> int:
        """This node's part of the job's processes, until they or the job have ended. A failure is
        reported to the first node, which ends the job.
        """
        command = ["-m", "workbench.tasks.node_worker", str(self.folder), str(attempt), str(node)]
        child = start_attached(command, self.folder / f"node-{node}.log")
        over: float | None = None
        while over is None or time.monotonic() < over:
            with suppress(subprocess.TimeoutExpired):
                code = child.wait(timeout=0.3)
                if code != 0:
                    name = f"node {node} ({socket.gethostname()})"
                    what = f"{name} ended with {code}: see node-{node}.log"
                    write_lost(self.folder, attempt, f"node-{node}", what)
                return 0
            if over is None and over_file(self.folder, attempt).exists():
                over = time.monotonic() + GRACE
        child.kill()
        return 0

    def wait(self, child: subprocess.Popen[bytes]) -> int:
        """The job's exit status; whoever asks it to stop reaches it here, by force after a grace time."""
        clock = StopClock()
        asked = False
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=0.3)
            how = read_stop(self.folder)
            if how is not None and not asked:
                terminate(self.child)
                asked = True
            clock.insist(how, self.child)
            clock.silence.insist(self.own_folder, self.child)

    def speak_for_the_job(self, code: int) -> None:
        """An array's job has failed with its first task, and has stopped when one that was asked to
        has.
        """
        if code in (0, REQUEUE):
            if read_stop(self.folder) is not None:
                write_outcome(self.folder, Outcome(state="stopped"))
            return
        outcome = read_outcome(self.own_folder)
        if outcome is None:
            outcome = Outcome(state="failed", error=exit_reason(code))
        if outcome.state == "failed":
            task = f"task {self.own_folder.name}: {outcome.error}"
            write_outcome(self.folder, outcome.model_copy(update={"error": task}))

    def checkpoint(self) -> Any:
        """The time is nearly up, or the job is preempted: stop it with a checkpoint, and have
        submitit requeue it. One that does not stop in time goes on from its last checkpoint.

        Called in a signal handler: `wait` stands still meanwhile.
        """
        from submitit.helpers import DelayedSubmission

        terminate(self.child)
        end = time.monotonic() + max(1.0, self.notice - LEFT)
        while alive(self.child) and time.monotonic() < end:
            time.sleep(0.05)
        kill(self.child)
        outcome = read_outcome(self.own_folder)
        if read_stop(self.folder) is not None or (outcome and outcome.state != "stopped"):
            return None  # it has ended for good
        clear_word(self.own_folder)
        return DelayedSubmission(RunJob(self.folder, self.first, self.notice, self.shard))


def clear_word(folder: Path) -> None:
    """Take back "stopped": the job goes on."""
    (folder / "outcome.json").unlink(missing_ok=True)


def requeue_while_it_runs(folder: Path) -> None:
    """Requeue this job, unless it is being cancelled: Slurm would bring that one back to life."""
    job = os.environ.get("SLURM_JOB_ID", "")
    words = command_output(["squeue", "-h", "-j", job, "-o", "%T"]).split()
    if words == ["RUNNING"]:
        clear_word(folder)
        command_output(["scontrol", "requeue", job])
        time.sleep(60)  # Slurm ends this process


def command_output(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return result.stdout
