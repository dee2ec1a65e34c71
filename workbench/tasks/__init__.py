"""Job kinds: each verb as a generator of Progress made from plain JSON data, and how to run one,
here or in a child process.

`python -m workbench.tasks JOBFOLDER` runs a job (`__main__.py`). Importing this package imports no
torch.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..records import BadInput, Progress
from ..workspace import jobs
from ..workspace.job_files import Recorder
from ..workspace.processes import default_device, lock_path, try_lock
from ..workspace.store import Store
from ..workspace.worker import settle

Watch = Callable[[Progress], None]
KINDS: dict[str, str] = {  # name -> where its generator is; imported when it runs
    "info": "workbench.tasks.info:info",
    "plan": "workbench.tasks.plan:plan",
    "plan-info": "workbench.tasks.plan:plan_info",
    "profile": "workbench.tasks.profile:profile",
    "import-map": "workbench.tasks.import_map:import_map",
    "build": "workbench.tasks.plan:build",
    "distill": "workbench.tasks.distill:distill",
    "compare": "workbench.tasks.compare:compare",
    "demo": "workbench.tasks.demo:demo",
    "reproduce": "workbench.tasks.reproduce.run:reproduce",
}
# answered in seconds: in the foreground they leave no job
QUICK = ("info", "plan", "plan-info", "import-map")


def quick(kind: str, spec: dict[str, Any]) -> bool:
    """Whether a kind is answered in seconds. A plan whose rule measures is not."""
    if kind != "plan":
        return kind in QUICK
    from ..recipes import recipe as recipes
    from ..rules import RULES

    name = spec.get("rule") or (
        recipes.load(str(spec["recipe"])).plan["rule"] if spec.get("recipe") else ""
    )
    return name not in RULES or not RULES[name].measures


class Stopped(Exception):
    """The work was told to stop; its checkpoint, if it has one, is written."""


@dataclass(frozen=True)
class Context:
    """What a kind works with, beside its spec."""

    store: Store
    device: str = "cpu"
    stop: Callable[[], bool] = field(default=lambda: False)
    resume: bool = False  # the job ran before: go on from its checkpoint
    folder: Path | None = None  # of the job


def kind_of(kind: str) -> Callable[[dict[str, Any], Context], Iterator[Progress]]:
    """The generator function of a kind. $WORKBENCH_TEST_KINDS names a module with more of them, for
    tests of the queue.
    """
    where = KINDS.get(kind)
    if where is None:
        where = f"{os.environ.get('WORKBENCH_TEST_KINDS', __name__)}:{kind}"
    module, _, name = where.partition(":")
    found = getattr(importlib.import_module(module), name, None)
    if found is None or (module == __name__):
        raise BadInput(f"job kind {kind!r} is unknown", "one of " + ", ".join(KINDS), "choose one")
    return found


def steps(kind: str, spec: dict[str, Any], context: Context, watch: Watch) -> Any:
    """Drive a kind to its end and return its result.

    Raises Stopped where it ended without one because it was told to.
    """
    result = None
    for progress in kind_of(kind)(spec, context):
        watch(progress)
        result = progress.result if progress.result is not None else result
    if result is None:
        if context.stop():
            raise Stopped
        raise RuntimeError(f"{kind} ended without a result")
    return result


def until(stop: Callable[[], bool], work: Iterator[Progress]) -> Iterator[Progress]:
    """Pass progress on until told to stop; for verbs that keep what they have at every step."""
    for progress in work:
        yield progress
        if progress.result is None and stop():
            return


def run(
    kind: str,
    spec: dict[str, Any],
    workspace: Path | str | None = None,
    on_progress: Watch | None = None,
    *,
    device: str = "",
    title: str = "",
) -> Any:
    """Run a kind in this process and return its result, the same code as a job.

    Long kinds leave a job folder too, so that the app shows them while they run. Ctrl-C stops at
    the next checkpoint and raises Stopped. Raises BadInput for input that a person can mend.
    """
    store, device, watch = (
        Store(workspace),
        device or default_device(),
        on_progress or (lambda progress: None),
    )
    kind_of(kind)  # an unknown kind leaves no job
    with interruptible() as stop:
        if quick(kind, spec):
            return steps(kind, spec, Context(store, device, stop), watch)
        with device_for(store, device, stop, watch):
            job = jobs.create(store, kind, spec, device, title, state="running")
            try:
                return conduct(store, job, stop, watch, resume=bool(spec.get("resume")))
            except Stopped:
                raise Stopped(job.id) from None
            finally:
                settle(store, job.id, os.getpid(), None)  # this process lives on; the job does not


def conduct(
    store: Store, job: jobs.Job, stop: Callable[[], bool], watch: Watch, resume: bool
) -> Any:
    """Run a job in this process: records progress and metrics, writes result.json and, as the last
    act, outcome.json.
    """
    recorder = Recorder(job.folder)

    def see(progress: Progress) -> None:
        recorder(progress)
        watch(progress)

    def stopping() -> bool:
        return stop() or (job.folder / "stop").exists()

    try:
        result = steps(
            job.kind, job.spec, Context(store, job.device, stopping, resume, job.folder), see
        )
    except BaseException as error:
        recorder.close()
        jobs.leave(job.folder, *how(error))
        raise
    recorder.close()
    jobs.finish(job.folder, result)
    store.add_metrics(job.id, jobs.metrics(store, job.id)[0])
    jobs.leave(job.folder, "done")
    return result


def how(error: BaseException) -> tuple[str, str, bool]:
    """(state, reason, whether the reason says all)."""
    if isinstance(error, Stopped | KeyboardInterrupt):
        return "stopped", "", True
    if isinstance(error, BadInput):
        return "failed", str(error), True
    return "failed", f"{type(error).__name__}: {error}".strip(), False


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask the work to stop at its next checkpoint; a second Ctrl-C does not wait
    for it.
    """
    asked = threading.Event()
    # a notebook's or a server's thread: signals are not ours
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def device_for(store: Store, device: str, stop: Callable[[], bool], watch: Watch) -> Iterator[None]:
    """Wait for a GPU until its job is done. The CPU is shared: work in the foreground does not wait
    for it.
    """
    lock = None
    while (
        device != "cpu" and (lock := try_lock(lock_path(store.workspace, "device", device))) is None
    ):
        watch(Progress(step=0, total=0, message=f"{device} is busy with a job; waiting"))
        time.sleep(0.5)
        if stop():
            raise Stopped
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)
