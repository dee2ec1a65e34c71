"""Running a verb: here or as a job's process, the same code.

`python -m workbench.tasks JOBFOLDER` runs a job (`__main__.py`). Importing this imports no torch.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from ..plugins.registry import imported
from ..records import BadInput, Progress
from ..specs import VERBS, VerbSpec
from ..workspace import jobs
from ..workspace.devices import chosen_device
from ..workspace.job_control import take_request
from ..workspace.job_files import (
    Outcome,
    ProgressWriter,
    is_full,
    keep_reserve,
    read_stop,
    write_outcome,
    write_result,
)
from ..workspace.job_inputs import check_large_inputs, typed_spec, with_loaded_plugins
from ..workspace.job_outputs import output_paths
from ..workspace.processes import STOP_SIGNALS, device_lock
from ..workspace.store import Store
from ..workspace.worker import settle
from .context import Context, Stopped
from .housekeeping import looked_after
from .job_lines import JobLines

Watch = Callable[[Progress], None]
Part = tuple[int, int]  # which task of an array, and how many there are


def run(
    verb: str,
    spec: VerbSpec | Mapping[str, Any],
    workspace: Path | str | None = None,
    on_progress: Watch | None = None,
    *,
    device: str = "",
    title: str = "",
) -> Any:
    """Run a verb in this process and return its result as plain data.

    Long verbs leave a job folder too, so that the app shows them while they run. Ctrl-C stops at
    the next checkpoint and raises Stopped. Raises BadInput for input that the user can fix.
    """
    typed = typed_spec(verb, spec)
    store = Store(workspace)
    device = chosen_device(device)
    watch = on_progress or ignore
    with interruptible() as stop:
        check(verb, typed, store, device)
        if is_quick(verb, typed):
            jobs.check_outputs(store, typed)
            return drive(verb, typed, Context(store, device, stop), watch)
        with device_for(store, device, stop, watch):
            return run_as_job(store, verb, typed, device, title, stop, watch)


def check(verb: str, spec: VerbSpec | Mapping[str, Any], store: Store, device: str = "") -> None:
    """Raises BadInput for what the verb can refuse before a job is made and any work begins."""
    typed = typed_spec(verb, spec)
    if VERBS[verb].check:
        imported(VERBS[verb].check)(typed, Context(store, chosen_device(device)))


def run_as_job(
    store: Store,
    verb: str,
    spec: VerbSpec,
    device: str,
    title: str,
    stop: Callable[[], bool],
    watch: Watch,
) -> Any:
    """Run a verb in this process with a job folder. Raises Stopped with the job's id."""
    job = jobs.create(store, verb, with_loaded_plugins(spec), device, title, state="running")
    try:
        resume = bool(getattr(spec, "resume", False))
        return conduct(store, job, stop, watch, resume=resume)
    except Stopped:
        stopped = Stopped(job.id)
        stopped.again = getattr(stop, "again", False) and read_stop(job.folder) is None
        raise stopped from None
    finally:
        # this process lives on; the job does not
        settle(store, job.id, os.getpid(), None)


def is_quick(verb: str, spec: VerbSpec) -> bool:
    """Whether a verb is answered in seconds, so that it leaves no job."""
    quick = VERBS[verb].quick
    if isinstance(quick, str):
        return bool(imported(quick)(spec))
    return quick


def ignore(progress: Progress) -> None:
    """Watches nothing."""


def drive(
    verb: str, spec: VerbSpec, context: Context, watch: Watch, part: Part | None = None
) -> Any:
    """Drive a verb's generator to its end and return its result.

    Raises Stopped where it ended without a result because it was asked to stop.
    """
    result = None
    for progress in generator(verb, spec, context, part):
        watch(progress)
        if progress.result is not None:
            result = progress.result
    if result is None:
        if context.stop():
            raise Stopped
        raise RuntimeError(f"{verb} ended without a result")
    return result


def generator(
    verb: str, spec: VerbSpec, context: Context, part: Part | None = None
) -> Iterator[Progress]:
    """The verb's work, or a part of it, started."""
    started: Iterator[Progress]
    if part is None:
        started = imported(VERBS[verb].run)(spec, context)
    else:
        started = imported(VERBS[verb].part)(spec, context, *part)
    return started


def conduct(
    store: Store,
    job: jobs.Job,
    stop: Callable[[], bool],
    watch: Watch,
    resume: bool,
    part: Part | None = None,
) -> Any:
    """Run a job in this process: writes its progress, metrics and log, then its result and, as the
    last act, its outcome. part: run that task of an array; job.folder is the task's own.

    Raises what the verb raises, BadInput where a large input file has changed since the submit.
    """
    writer = ProgressWriter(job.folder, job.attempt)
    lines = JobLines(job.folder)

    def see(progress: Progress) -> None:
        writer(progress)
        lines.see(progress)
        watch(progress)

    keep_reserve(job.folder)
    try:
        check_large_inputs(job.folder)
        lines.given(typed_spec(job.kind, job.spec), job.device)
        result = work(store, job, stop, see, resume, part)
        writer.close()
        lines.ended(result)
        write_result(job.folder, result)
    except BaseException as error:
        writer.close()
        write_outcome(job.folder, outcome_of(error, job.folder))
        raise
    write_outcome(job.folder, Outcome(state="done"))
    return result


def work(
    store: Store,
    job: jobs.Job,
    stop: Callable[[], bool],
    see: Watch,
    resume: bool,
    part: Part | None,
) -> Any:
    """Drive a job's verb while its disks and its log are looked after.

    Raises BadInput where it had to stop because a disk is nearly full.
    """
    spec = typed_spec(job.kind, job.spec)
    paths: list[Path | str] = [job.folder, store.workspace, *output_paths(spec)]
    with looked_after(job.folder / "log.txt", paths) as disks:

        def asked() -> bool:
            return stop() or (job.folder / "stop").exists()

        def stopping() -> bool:
            return asked() or disks.fault is not None

        in_job = Store(store.workspace, job=job.id)
        requested = partial(take_request, job.folder)
        context = Context(in_job, job.device, stopping, resume, job.folder, requested)
        try:
            return drive(job.kind, spec, context, see, part)
        except Stopped:
            if disks.fault is None or asked():
                raise
            raise disks.fault from None


def outcome_of(error: BaseException, folder: Path) -> Outcome:
    """How a job ended that raised this; folder: the job's."""
    if isinstance(error, Stopped | KeyboardInterrupt):
        return Outcome(state="stopped")
    if isinstance(error, BadInput):
        return Outcome(state="failed", error=str(error), expected=True)
    if is_full(error):
        line = f"no space left on the disk ({error}); free some and resume the job"
        return Outcome(state="failed", error=" ".join(line.split()), expected=True)
    return Outcome(state="failed", error=f"{type(error).__name__}: {error}".strip())


class StopFlag:
    """Whether the work is to stop. again: a signal asked for it that a machine sends, not Ctrl-C."""

    def __init__(self) -> None:
        self.is_set = False
        self.again = False

    def __call__(self) -> bool:
        return self.is_set


@contextmanager
def interruptible() -> Iterator[StopFlag]:
    """Ctrl-C, SIGTERM and SIGUSR1 ask the work to stop at its next checkpoint; a second Ctrl-C does
    not wait for it.
    """
    stop = StopFlag()
    # a notebook's or a server's thread: signals are not ours
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.is_set = True
        stop.again = number in STOP_SIGNALS

    numbers = (signal.SIGINT, *STOP_SIGNALS)
    earlier = {number: signal.signal(number, on_signal) for number in numbers}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a job starts with them blocked
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def device_for(store: Store, device: str, stop: Callable[[], bool], watch: Watch) -> Iterator[None]:
    """Wait for a GPU until its job is done; raises Stopped where the user does not want to."""

    def wait() -> None:
        watch(Progress(step=0, total=0, message=f"{device} is busy with a job; waiting"))
        time.sleep(0.5)
        if stop():
            raise Stopped

    with device_lock(store.workspace, device, wait):
        yield
