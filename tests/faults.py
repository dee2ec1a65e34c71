"""Kill -9 at random over an app, its front ends, workers and jobs, and count what was lost.

    python tests/faults.py --kills 200 --json

prints {"kills", "jobs", "lost_jobs", "wrong_states", "bit_equal_resumes", "resumes"}.

Real processes on a real workspace: an app, front ends that queue jobs and look after workers as the
app does, the workers that those start, and the jobs. What the workspace says is compared with the
table of processes after each kill, and each result with one that is computed beside it. Every
twentieth job is a real distillation. The choices come from a seed; the moments are the machine's.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import fault_verbs  # noqa: E402
from workbench.plugins import load_plugin  # noqa: E402
from workbench.records import BadInput  # noqa: E402
from workbench.workspace import jobs  # noqa: E402
from workbench.workspace.job_files import read_outcome  # noqa: E402
from workbench.workspace.processes import identity  # noqa: E402
from workbench.workspace.store import Store  # noqa: E402

VERBS = ROOT / "tests" / "fault_verbs.py"
WEIGHTS = {"job": 10, "worker": 4, "front end": 3, "app": 1, "job and worker": 2, "pause": 3}
MOST_KILLS_OF_A_JOB = {"digest": 6, "distill": 2}  # so that each ends some day
PATIENCE = 8.0  # seconds until the workspace has to know what the table of processes says
LIVE = ("running", "stopping")
RESUMED = ("failed", "lost", "paused")

STAGES = """
name: tiny
stages:
  - {name: full, gradient: full, inputs: student, losses: {output: {}}, train: all, steps: 60,
     batch: 2, lr: 1.0e-3, ema: 0.9}
"""


@dataclass
class Count:
    """What is printed. kills: of processes that were alive."""

    kills: int = 0
    jobs: int = 0
    lost_jobs: int = 0
    wrong_states: int = 0
    bit_equal_resumes: int = 0
    resumes: int = 0
    notes: list[str] = field(default_factory=list)  # of each lost job and wrong state


# --- a front end ----------------------------------------------------------------------------------


def front_end(workspace: Path, ledger: Path, first_seed: int, count: int) -> None:
    """Queue jobs and look after the workers, as the app does at each tick; note each job that was
    promised.
    """
    load_plugin(VERBS)
    store = Store(workspace)
    rng = random.Random(first_seed)
    for seed in range(first_seed, first_seed + count):
        spec = {"seed": seed, "steps": rng.randrange(20, 120)}
        job = jobs.submit(store, "digest", spec)
        with open(ledger, "a") as file:
            file.write(f"{job.id} {seed} {spec['steps']}\n")
        time.sleep(0.3 * rng.random())
    while True:
        jobs.wake(store)
        jobs.list_jobs(store)
        time.sleep(0.5)


# --- the driver -----------------------------------------------------------------------------------


class Faults:
    """One run on one workspace. distillations: how many of the jobs are real ones."""

    def __init__(self, folder: Path, kills: int, seed: int, distillations: int) -> None:
        self.folder = folder
        self.wanted = kills
        self.rng = random.Random(seed)
        self.count = Count()
        load_plugin(VERBS)
        self.store = Store(folder / "workspace")
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.started: dict[str, subprocess.Popen[bytes]] = {}
        self.seed = 1000
        self.kills_of: dict[str, int] = {}
        self.killed: set[tuple[str, int]] = set()  # (job, attempt)
        self.resumed: set[str] = set()
        self.distilled: dict[str, Path] = {}  # job -> its output
        self.reference = ""
        self.distillations = distillations

    def run(self) -> Count:
        if self.distillations:
            self.prepare_distillations()
        try:
            while self.count.kills < self.wanted:
                self.revive()
                time.sleep(self.rng.uniform(0.2, 1.8))
                self.strike()
                self.check()
            self.finish()
        finally:
            for process in self.started.values():
                process.kill()
                process.wait()
            for process in self.processes("workbench."):
                process.kill()
        self.compare_with_folders()
        return self.count

    # --- processes --------------------------------------------------------------------------------

    def processes(self, word: str) -> list[psutil.Process]:
        """The processes of this workspace whose command line has a word."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            dead = process.info["status"] == psutil.STATUS_ZOMBIE
            if not dead and word in line and str(self.store.workspace) in line:
                found.append(process)
        return found

    def process_of(self, job: jobs.Job) -> psutil.Process | None:
        found = [p for p in self.processes("workbench.tasks") if str(job.folder) in line_of(p)]
        return found[0] if found else None

    def revive(self) -> None:
        """Start what is missing: the app and a front end; resume what was killed or paused."""
        if not self.is_alive("app"):
            port = free_port()
            command = ["-m", "workbench", "app", "--port", str(port), "--workspace"]
            self.start("app", [*command, str(self.store.workspace)])
        if not self.is_alive("front end"):
            count = self.rng.randrange(2, 6) if self.count.kills < self.wanted else 0
            workspace = str(self.store.workspace)
            arguments = [workspace, str(self.ledger), str(self.seed), str(count)]
            self.start("front end", [__file__, "--front-end", *arguments])
            self.seed += 10
        for job in jobs.list_jobs(self.store):
            if job.state in RESUMED:
                self.resume(job)

    def resume(self, job: jobs.Job) -> None:
        try:
            jobs.resume(self.store, job.id)
            self.resumed.add(job.id)
        except BadInput as error:
            self.wrong(f"{job.id} is {job.state} and cannot be resumed: {error}")

    def start(self, name: str, arguments: list[str]) -> None:
        log = open(self.folder / f"{name}.log", "ab")  # noqa: SIM115  (the process keeps it)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "WORKBENCH_IDLE": "1"}
        self.started[name] = subprocess.Popen(
            [sys.executable, *arguments], stdout=log, stderr=log, env=environment
        )
        log.close()

    def is_alive(self, name: str) -> bool:
        return name in self.started and self.started[name].poll() is None

    # --- killing ----------------------------------------------------------------------------------

    def strike(self) -> None:
        """Kill one of the kinds, where one is alive."""
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if kind in ("app", "front end"):
            if self.is_alive(kind):
                self.started[kind].kill()
                self.started[kind].wait()
                self.count.kills += 1
            return
        if kind in ("worker", "job and worker"):
            for process in self.processes("workbench.workspace.worker"):
                self.kill(process)
        if kind == "pause":
            self.pause_one()
            time.sleep(0.1 * self.rng.random())
        if kind != "worker":
            for job in jobs.list_jobs(self.store, active=True):
                self.kill_job(job)

    def pause_one(self) -> None:
        for job in jobs.list_jobs(self.store, active=True):
            if job.state == "running" and job.kind == "digest":
                try:
                    jobs.pause(self.store, job.id)
                except BadInput as error:  # it has ended meanwhile
                    assert "nothing is left to stop" in error.do, error
                return

    def kill_job(self, job: jobs.Job) -> None:
        process = self.process_of(job)
        if process is None or self.kills_of.get(job.id, 0) >= MOST_KILLS_OF_A_JOB[job.kind]:
            return
        self.kills_of[job.id] = self.kills_of.get(job.id, 0) + 1
        if job.kind == "distill":  # its imports alone take seconds
            time.sleep(self.rng.uniform(2, 12))
        self.killed.add((job.id, int(line_of(process).split()[-1])))
        self.kill(process)

    def kill(self, process: psutil.Process) -> None:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return
        self.count.kills += 1
        while identity(process.pid) is not None:  # a zombie is dead
            time.sleep(0.01)

    # --- comparing --------------------------------------------------------------------------------

    def check(self) -> None:
        """Every job is what the table of processes and its files say, at the latest after a while."""
        deadline = time.monotonic() + PATIENCE
        faults = self.faults()
        while faults and time.monotonic() < deadline:
            time.sleep(0.2)
            faults = [fault for fault in self.faults() if fault in faults]
        for fault in faults:
            self.wrong(fault)

    def faults(self) -> list[str]:
        """What is wrong at this moment; some of it only because two looks are not one."""
        found = []
        listed = {job.id: job for job in jobs.list_jobs(self.store)}
        for line in self.promised():
            if line[0] not in listed:
                found.append(f"{line[0]} is gone")
        if len(self.processes("workbench.tasks")) > 1:
            found.append("two jobs run on one device")
        if len(self.processes("workbench.workspace.worker")) > 2:  # a second one leaves at once
            found.append("workers pile up")
        for job in listed.values():
            found += self.faults_of(job)
        return found

    def faults_of(self, job: jobs.Job) -> list[str]:
        is_running = self.process_of(job) is not None
        attempt = (job.id, job.attempt)
        if job.state in LIVE and not is_running:
            return [f"{job.id} is {job.state} without a process"]
        if is_running and job.state not in LIVE:
            return [f"{job.id} runs and is {job.state}"]
        if job.state in ("failed", "lost") and attempt not in self.killed:
            return [f"{job.id} is {job.state} and nobody killed it: {job.error}"]
        if job.state == "paused":
            outcome = read_outcome(job.folder)
            if outcome is None or outcome.state != "stopped":
                return [f"{job.id} is paused without its word"]
        if job.state == "done" and job.kind == "digest":
            right = fault_verbs.whole(job.spec["seed"], job.spec["steps"])
            if job.result != {"digest": right}:
                return [f"{job.id} is done with another result"]
        if job.state in ("cancelled", "damaged"):
            return [f"{job.id} is {job.state}"]
        return []

    def wrong(self, note: str) -> None:
        self.count.wrong_states += 1
        self.count.notes.append(note)
        print(note, file=sys.stderr, flush=True)

    def promised(self) -> list[list[str]]:
        """(job, seed, steps) of each submit that returned."""
        lines = self.ledger.read_text().splitlines()
        return [parts for parts in map(str.split, lines) if len(parts) == 3]

    def finish(self) -> None:
        """Let everything end, then count what did not, and what ended otherwise than it should."""
        deadline = time.monotonic() + 60 + 3 * self.wanted
        open_jobs = ["any"]
        while open_jobs and time.monotonic() < deadline:
            self.revive()
            time.sleep(0.5)
            open_jobs = [job.id for job in jobs.list_jobs(self.store) if job.state != "done"]
        self.check()
        listed = {job.id: job for job in jobs.list_jobs(self.store)}
        promised = {line[0] for line in self.promised()} | set(self.distilled)
        self.count.jobs = len(promised | set(listed))
        for name in sorted(promised | set(listed)):
            if name not in listed or listed[name].state != "done":
                self.count.lost_jobs += 1
                state = listed[name].state if name in listed else "gone"
                self.count.notes.append(f"{name} is {state} at the end")
        self.count.resumes = len(self.resumed)
        for name in self.resumed:
            self.count.bit_equal_resumes += name in listed and self.is_right(listed[name])

    def is_right(self, job: jobs.Job) -> bool:
        if job.kind == "distill":
            return job.state == "done" and weights(self.distilled[job.id]) == self.reference
        right = fault_verbs.whole(job.spec["seed"], job.spec["steps"])
        return bool(job.result == {"digest": right})

    def compare_with_folders(self) -> None:
        """A database made again from the folders says the same."""
        before = {job.id: job.state for job in jobs.list_jobs(self.store)}
        for file in self.store.workspace.glob("workbench.db*"):
            file.unlink()
        after = {job.id: job.state for job in jobs.list_jobs(Store(self.store.workspace))}
        for name in before.keys() | after.keys():
            if before.get(name) != after.get(name):
                self.wrong(f"{name}: {before.get(name)}, by its folder {after.get(name)}")

    # --- distillations ----------------------------------------------------------------------------

    def prepare_distillations(self) -> None:
        """A tiny student, the weights it has after a distillation that nobody disturbs, and the
        queued distillations.
        """
        from tests.tiny import tiny_qwen_pipeline

        teacher = tiny_qwen_pipeline(self.folder / "teacher", depth=4)
        (self.folder / "stages.yaml").write_text(STAGES)
        (self.folder / "prompts.txt").write_text("a red circle\na blue square\n")
        plan = str(self.folder / "plan.yaml")
        self.verb("plan", str(teacher), "--keep", "2", "-o", plan)
        self.verb("build", plan, "-o", str(self.folder / "built"))
        whole = jobs.submit(self.store, "distill", self.distillation("whole"))
        self.await_done(whole.id)
        self.reference = weights(self.folder / "whole")
        for number in range(self.distillations):
            out = f"distilled-{number}"
            job = jobs.submit(self.store, "distill", self.distillation(out))
            self.distilled[job.id] = self.folder / out

    def distillation(self, out: str) -> dict[str, Any]:
        return {
            "student": str(self.folder / "built"),
            "spec": str(self.folder / "stages.yaml"),
            "data": str(self.folder / "prompts.txt"),
            "out": str(self.folder / out),
            "size": 32,
            "checkpoint_every": 0.02,
        }

    def verb(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "workbench", *arguments]
        workspace = ["--workspace", str(self.store.workspace)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, *workspace], check=True, capture_output=True, env=environment)

    def await_done(self, job: str) -> None:
        while jobs.show(self.store, job).state != "done":
            jobs.wake(self.store)
            assert jobs.show(self.store, job).state not in RESUMED, jobs.show(self.store, job).error
            time.sleep(0.5)


def weights(student: Path) -> str:
    """SHA-256 of a student's weights."""
    [file] = (student / "transformer").glob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--distillations", type=int, help="real ones; default: kills / 40")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--front-end", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.front_end:
        workspace, ledger, seed, count = arguments.front_end
        front_end(Path(workspace), Path(ledger), int(seed), int(count))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("WORKBENCH_IDLE", "1")
    os.environ["WORKBENCH_DEVICE"] = "cpu"
    distillations = arguments.distillations
    if distillations is None:
        distillations = arguments.kills // 40
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    count = Faults(folder, arguments.kills, arguments.seed, distillations).run()
    figures = {name: value for name, value in vars(count).items() if name != "notes"}
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name} {value}" for name, value in figures.items()))
    if count.lost_jobs or count.wrong_states or count.bit_equal_resumes != count.resumes:
        print("\n".join([*count.notes, f"its workspace is in {folder}"]), file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
