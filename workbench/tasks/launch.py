"""Running a verb: here or as a job's process, the same code.

`python -m workbench.tasks JOBFOLDER` runs a job (`__main__.py`). Importing this imports no torch.
"""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..plugins import load_plugin
from ..plugins.registry import imported
from ..records import BadInput, Progress
from ..specs import VERBS, VerbSpec, parse_spec
from ..workspace import jobs
from ..workspace.job_files import Recorder
from ..workspace.processes import default_device, lock_path, try_lock
from ..workspace.store import Store
from ..workspace.worker import settle
from .context import Context, Stopped

Watch = Callable[[Progress], None]


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
    spec = checked(verb, spec)
    store = Store(workspace)
    device = device or default_device()
    watch = on_progress or ignore
    with interruptible() as stop:
        if is_quick(verb, spec):
            return drive(verb, spec, Context(store, device, stop), watch)
        with device_for(store, device, stop, watch):
            job = jobs.create(store, verb, spec.to_data(), device, title, state="running")
            try:
                resume = bool(getattr(spec, "resume", False))
                return conduct(store, job, stop, watch, resume=resume)
            except Stopped:
                raise Stopped(job.id) from None
            finally:
                # this process lives on; the job does not
                settle(store, job.id, os.getpid(), None)


def checked(verb: str, spec: VerbSpec | Mapping[str, Any]) -> VerbSpec:
    """A typed spec, with its plugins loaded. Raises BadInput for what does not fit the verb."""
    data = spec.to_data() if isinstance(spec, VerbSpec) else dict(spec)
    for file in data.get("plugins", []):
        load_plugin(file)
    return spec if isinstance(spec, VerbSpec) else parse_spec(verb, data)


def is_quick(verb: str, spec: VerbSpec) -> bool:
    """Whether a verb is answered in seconds, so that it leaves no job."""
    quick = VERBS[verb].quick
    return bool(imported(quick)(spec)) if isinstance(quick, str) else quick


def ignore(progress: Progress) -> None:
    """Watches nothing."""


def drive(verb: str, spec: VerbSpec, context: Context, watch: Watch) -> Any:
    """Drive a verb's generator to its end and return its result.

    Raises Stopped where it ended without a result because it was told to stop.
    """
    result = None
    for progress in generator(verb, spec, context):
        watch(progress)
        result = progress.result if progress.result is not None else result
    if result is None:
        if context.stop():
            raise Stopped
        raise RuntimeError(f"{verb} ended without a result")
    return result


def generator(verb: str, spec: VerbSpec, context: Context) -> Iterator[Progress]:
    """The verb's work, started."""
    work = imported(VERBS[verb].run)
    first = next(iter(inspect.signature(work).parameters.values()))
    if "dict" in str(first.annotation):  # a verb whose generator does not take its typed spec yet
        return work(old_names(spec), context)
    return work(spec, context)


def old_names(spec: VerbSpec) -> dict[str, Any]:
    """The spec as a dict of its set fields, under their former names."""
    former = {new: old for old, new in spec.also.items()}
    data = spec.model_dump(mode="json", exclude_none=True, exclude={"plugins"})
    return {former.get(name, name): value for name, value in data.items()}


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
        result = drive(
            job.kind,
            checked(job.kind, job.spec),
            Context(store, job.device, stopping, resume, job.folder),
            see,
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
