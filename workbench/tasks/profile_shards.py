"""One scan over several processes of this machine: each measures its share of the calls.

`workbench profile --processes N` starts them; `profile_worker.py` is one of them.
"""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import BadInput, Progress, jsonfile
from ..sensitivity.partial import finished_calls
from ..sensitivity.scan_settings import Gather
from ..specs import ProfileSpec
from ..workspace.processes import environment
from .context import Context

PR_SET_PDEATHSIG = 1  # Linux's prctl: the signal to get when the parent dies
LOG_TAIL = 2000  # characters of the processes' output that an error shows


@dataclass(frozen=True)
class Share:
    """A process's part of a scan: every `count`-th batch of prompts, from `number` on.

    gather: joins what all processes measured.
    """

    number: int = 0
    count: int = 1
    gather: Gather | None = None

    @property
    def alone(self) -> bool:
        """Whether this is the whole scan, and not one of its processes."""
        return self.gather is None

    @property
    def first(self) -> bool:
        return self.number == 0

    def file(self, partial: Path) -> Path:
        """The process's own partial file."""
        return partial if self.count == 1 else partial.with_name(f"{partial.name}.{self.number}")


WHOLE = Share()


def in_processes(
    spec: ProfileSpec, count: int, context: Context, partial: Path
) -> Iterator[Progress]:
    """Run the scan in `count` processes of this machine; the last Progress has the result of the
    first.

    Asked to stop, it ends them; what they finished stays for --resume. Raises BadInput where one of
    them does, and RuntimeError with the end of their output where they end without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / "request.json"
        answer = Path(folder) / "answer.json"
        request.write_text(
            json.dumps(
                {
                    "spec": spec.to_data(),
                    "answer": str(answer),
                    "workspace": str(context.store.workspace),
                    "device": context.device,
                    "resume": context.resume,
                }
            )
        )
        with open(Path(folder) / "log", "w+") as log:
            process = start(request, count, context.device, log)
            yield from watched(process, context, lambda: finished_calls(partial), count)
            if not answer.is_file():
                if context.stop():
                    return
                log.seek(0)
                raise RuntimeError(
                    f"a process of the scan ended without a result (exit {process.returncode}):\n"
                    + log.read()[-LOG_TAIL:]
                )
        reply = jsonfile.read_object(answer, "reply")
    if reply["refused"]:
        raise BadInput(*reply["refused"])
    if reply["estimate"]:
        print(reply["estimate"], file=sys.stderr, flush=True)
    yield Progress(step=1, total=1, result={**reply["result"], "processes": count})


def start(request: Path, count: int, device: str, log: Any) -> subprocess.Popen[bytes]:
    """Start the processes under torch's launcher; their output goes into `log`."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        "-m",
        "workbench.tasks.profile_worker",
        str(request),
    ]
    variables = environment()
    if device == "cpu":
        variables["ACCELERATE_USE_CPU"] = "true"
    return subprocess.Popen(
        command, stdout=log, stderr=log, env=variables, preexec_fn=die_with_parent
    )


def watched(
    process: subprocess.Popen[bytes], context: Context, done: Callable[[], int], count: int
) -> Iterator[Progress]:
    """Progress until the launcher has ended; it takes its children with it."""
    try:
        while process.poll() is None:
            yield Progress(step=done(), total=0, message=f"{count} processes")
            if context.stop():
                return
            try:
                process.wait(0.3)
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()


def die_with_parent() -> None:
    """On Linux a launcher that is killed leaves its children running; they ask the kernel to end
    them with it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
