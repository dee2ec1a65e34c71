"""Slurm: jobs are sent through submitit, asked after with squeue and sacct, ended with scancel.

submitit's own answers come from sacct alone, which many small clusters do not have, and which knows
a job only some time after it was sent; squeue knows it at once, for some minutes after its end too.
"""

from __future__ import annotations

import getpass
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any

from ...records import BadInput
from ..processes import search_path
from .engine_files import Answer
from .engine_texts import slurm_file
from .on_node import RunJob
from .table import Engine, Sending

PATIENCE = 10.0  # seconds for one of Slurm's commands
WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
)
RUNNING = ("RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "SIGNALING", "RESIZING", "STOPPED")
MISSING = "that package"


class Slurm:
    """The client of Slurm."""

    def check(self) -> None:
        """Raises BadInput where there is no sbatch, or no submitit."""
        if shutil.which("sbatch") is None:
            raise BadInput(
                "no sbatch on this machine",
                "a machine that submits to Slurm",
                "run the command on the cluster's login node, or print a file for it with "
                "--print slurm",
            )
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError:
            raise BadInput(
                "--on slurm without the package submitit",
                MISSING,
                "pip install 'dit-workbench[slurm]'",
            ) from None

    def send(self, sending: Sending) -> str:
        """Submit a job, or an array of its tasks; returns Slurm's number."""
        self.check()
        from submitit.core.utils import FailedJobError

        executor = executor_of(sending)
        whole = RunJob(sending.folder, sending.attempt, sending.settings.notice)
        work = [whole]
        if sending.tasks > 1:
            work = [whole.part(number, sending.tasks) for number in range(sending.tasks)]
        try:
            with executor.batch():
                sent = [executor.submit(one) for one in work]
        except FailedJobError as error:  # what sbatch printed
            raise refused(str(error)) from None
        number: str = sent[0].job_id
        return number.partition("_")[0]

    def ask(self, ids: list[str]) -> dict[str, Answer]:
        """What squeue says, and sacct of those that squeue has forgotten."""
        now = time.time()
        rows = squeue(ids)
        forgotten = [job for job in ids if job not in rows]
        if forgotten:
            rows |= sacct(forgotten)
        answers = {}
        for job in ids:
            answers[job] = joined(rows.get(job, []), now)
        return answers

    def withdraw(self, job: str) -> None:
        run(["scancel", job])

    def follow(self, job: str, after: str) -> None:
        run(["scontrol", "update", f"JobId={job}", f"Dependency=afterok:{after}"])


# --- sending --------------------------------------------------------------------------------------


def executor_of(sending: Sending) -> Any:
    """submitit's executor with a job's settings. Raises BadInput for options that it refuses."""
    from submitit import SlurmExecutor

    settings = sending.settings
    folder = sending.folder / "cluster"
    python = settings.python or shlex.quote(sys.executable)
    executor = SlurmExecutor(folder, max_num_timeout=settings.requeues, python=python)
    setup = [line for line in settings.setup.splitlines() if line.strip()]
    setup.append(f"export PYTHONPATH={shlex.quote(search_path())}")
    options: dict[str, Any] = {"requeue": True, **settings.options}
    parameters: dict[str, Any] = {
        "job_name": sending.title,
        "time": settings.minutes,
        "signal_delay_s": settings.notice,
        "cpus_per_task": settings.cpus,
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "setup": setup,
        "additional_parameters": options,
    }
    if settings.memory is not None:
        parameters["mem"] = f"{int(settings.memory * 1024)}MB"
    if settings.nodes > 1:
        parameters |= {"nodes": settings.nodes, "ntasks_per_node": 1}
    if sending.gpus:
        parameters["gpus_per_node"] = sending.gpus
    if sending.after:  # after a failure it waits until that one has been resumed
        parameters["dependency"] = f"afterok:{sending.after}"
        options["kill_on_invalid_dep"] = "no"
    executor.update_parameters(**parameters)
    return executor


def refused(text: str) -> BadInput:
    """sbatch's own words, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith("sbatch:")] or lines[-1:]
    reason = " ".join(reasons).replace("sbatch: error: ", "")
    return BadInput(
        f"sbatch refused the job ({reason})", "a job that Slurm takes", "change slurm.yaml"
    )


# --- asking ---------------------------------------------------------------------------------------

Word = tuple[str, str]  # Slurm's word for a state, and its reason


def squeue(ids: list[str]) -> dict[str, list[Word]]:
    """Number -> the words of its tasks, of the user's jobs that Slurm still has in memory.

    All jobs of the user are asked for: squeue fails where it is asked for one that it has forgotten.
    """
    text = run(["squeue", "-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%F|%T|%r"])
    return words_of(text, set(ids))


def sacct(ids: list[str]) -> dict[str, list[Word]]:
    """The same of jobs in Slurm's accounting; nothing where there is none."""
    command = ["sacct", "-X", "-n", "-P", "-j", ",".join(ids), "-o", "JobID,State,Reason"]
    try:
        text = run(command)
    except OSError:  # a cluster without accounting
        return {}
    return words_of(text, set(ids))


def words_of(text: str, ids: set[str]) -> dict[str, list[Word]]:
    rows: dict[str, list[Word]] = {}
    for line in text.splitlines():
        number, word, reason = f"{line}||".split("|")[:3]
        job = number.partition("_")[0]
        if job in ids:
            rows.setdefault(job, []).append((word, reason))
    return rows


def joined(words: list[Word], now: float) -> Answer:
    """One answer from the words of a job's tasks: what runs counts first, then what waits."""
    running = [pair for pair in words if pair[0].startswith(RUNNING)]
    waiting = [pair for pair in words if pair[0].startswith(WAITING)]
    ended = [pair for pair in words if pair not in running and pair not in waiting]
    bad = [pair for pair in ended if not pair[0].startswith("COMPLETED")]
    if running:
        return Answer(state="running", word=running[0][0], asked=now)
    if waiting:
        word, reason = waiting[0]
        return Answer(state="waiting", word=word, reason=f"waits in Slurm: {reason}", asked=now)
    if not ended:
        return Answer(state="gone", asked=now)
    word, reason = (bad or ended)[0]
    return Answer(state="ended", word=word, reason=reason, asked=now)


def run(command: list[str]) -> str:
    """A command's output. Raises OSError with its last line where it fails or does not answer."""
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]} does not answer") from None
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
        raise OSError(f"{command[0]}: {lines[-1]}")
    return result.stdout


ENGINE = Engine(about="Slurm, by submitit", file=slurm_file, client=Slurm())
