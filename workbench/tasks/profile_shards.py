"""One scan over several processes: each takes its share of the calls, all gather, the first writes
the map.

`workbench profile --processes N` launches them here. On several machines the same program runs
under any launcher: `accelerate launch --num_machines 2 .. -m workbench.tasks.profile_shards
SPEC.json`. Not `accelerate launch --cpu`: that starts one process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import BadInput, Progress
from ..workspace.store import Store
from .context import Context


@dataclass(frozen=True)
class Share:
    """This process's part of a scan."""

    number: int = 0
    count: int = 1
    gather: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] | None = None

    def file(self, partial: Path) -> Path:
        """Its own partial file."""
        return partial if self.count == 1 else partial.with_name(f"{partial.name}.{self.number}")


def share_of(spec: dict[str, Any]) -> Share:
    """What `shard` [number, count] of a spec says; all of it where there is none."""
    if "shard" not in spec:
        return Share()
    from accelerate.utils import gather_object

    number, count = spec["shard"]
    return Share(number, count, gather_object)


def launched(spec: dict[str, Any], context: Context, partial: Path) -> Iterator[Progress]:
    """Run the scan in `processes` processes of this machine; the last Progress carries the result
    of the first.

    Told to stop, it ends them; what they finished stays for --resume.
    """
    from ..sensitivity import finished_calls

    count = int(spec["processes"])
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder) / "spec.json", Path(folder) / "answer.json"
        given.write_text(
            json.dumps(
                {
                    "spec": {k: v for k, v in spec.items() if k != "processes"},
                    "answer": str(answer),
                    "workspace": str(context.store.workspace),
                    "device": context.device,
                    "resume": context.resume,
                }
            )
        )
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={count}",
            "-m",
            "workbench.tasks.profile_shards",
            str(given),
        ]
        environment = {
            **os.environ,
            **({"ACCELERATE_USE_CPU": "true"} if context.device == "cpu" else {}),
        }
        with open(Path(folder) / "log", "w+") as log:
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, preexec_fn=_die_with_parent
            )
            yield from _watched(process, context, lambda: finished_calls(partial), count)
            if not answer.is_file():
                if context.stop():
                    return
                log.seek(0)
                tail = log.read()[-2000:]
                raise RuntimeError(
                    f"a process of the scan ended without a result (exit "
                    f"{process.returncode}):\n{tail}"
                )
        found = json.loads(answer.read_text())
    if "refused" in found:
        raise BadInput(*_parts(found["refused"]))
    if found.get("estimate_line"):
        print(found["estimate_line"], file=sys.stderr, flush=True)
    yield Progress(step=1, total=1, result={**found["result"], "processes": count})


def _watched(
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


def _parts(line: str) -> tuple[str, str, str]:
    """found, expected, do of a BadInput's line."""
    found, _, rest = line.partition("; expected ")
    expected, _, do = rest.rpartition("; ")
    return found, expected, do


def _die_with_parent() -> None:
    """A launcher that is killed leaves its children running; they ask the kernel to go with it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> int:
    """One process of the scan."""
    _die_with_parent()
    from accelerate import PartialState

    from .profile import profile

    given = json.loads(Path(sys.argv[1]).read_text())
    state = PartialState(cpu=given["device"] == "cpu")
    spec = {**given["spec"], "shard": [state.process_index, state.num_processes]}
    context = Context(Store(given["workspace"]), str(state.device), resume=given["resume"])
    lines: list[str] = []

    def watch(progress: Progress) -> None:
        if progress.message.startswith("estimate"):
            lines.append(progress.message)

    try:
        answer = {}
        for progress in profile(spec, context):
            watch(progress)
            if progress.result is not None:
                answer = {"result": progress.result}
    except BadInput as error:
        answer = {"refused": str(error)}
    answer["estimate_line"] = lines[0] if lines else ""
    if state.is_main_process or "refused" in answer:
        work = Path(f"{given['answer']}.{state.process_index}")
        work.write_text(json.dumps(answer))
        os.replace(work, given["answer"])
    # A process that refuses does not wait for the others in a gather: the launcher ends them.
    return 2 if "refused" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
