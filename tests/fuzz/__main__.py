"""Mutate files and count what goes wrong.

    python -m tests.fuzz --mutations 2000 --seed 0 --json

Each reader must take a mutation or refuse it with one line (BadInput, exit code 2), within 5 seconds
and 1 GB. Exit code 1 where one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from workbench.records import BadInput

from .mutations import mutation
from .targets import Target, World

MOST_SECONDS = 5.0
MOST_BYTES = 2**30
# how a model is held and sampled; progress, every ten seconds
NOTES = ("placement", "sampling: ", "profile ")
Failure = dict[str, Any]


class TooSlow(BaseException):
    """Raised where a reader does not come back."""


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    earlier = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 4 * MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def attempt(read: Callable[[], int | None]) -> str:
    """Read something once. Returns what was wrong with that, empty where all was well."""
    out, error = io.StringIO(), io.StringIO()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    try:
        with time_limit(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            code = read() or 0
        fault = complaint(code, error.getvalue())
    except BadInput as refusal:
        fault = "" if "\n" not in str(refusal) else "a refusal of several lines"
    except TooSlow:
        fault = "does not come back"
    except BaseException:
        fault = last_frames(traceback.format_exc())
    seconds = time.process_time() - start
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory)
    if not fault and seconds > MOST_SECONDS:
        fault = "slow"
    if not fault and grown > MOST_BYTES:
        fault = "more than 1 GB"
    return fault


def complaint(code: int, error: str) -> str:
    """What is wrong with how a command ended. Before its refusal it may say how it samples and how
    far it is: a fault of the model shows only once it runs.
    """
    lines = [line for line in error.strip().splitlines() if not line.startswith(NOTES)]
    if code == 0 or (code == 2 and len(lines) == 1):
        return ""
    return f"exit code {code} with {len(lines)} lines"


def last_frames(trace: str) -> str:
    """Where it happened and what: the last place of ours, and the error."""
    lines = trace.strip().splitlines()
    ours = [line.strip() for line in lines if "/workbench/" in line]
    return f"{ours[-1] if ours else ''} :: {lines[-1][:160]}"


def fuzz(count: int, seed: int, only: str = "") -> dict[str, Any]:
    """Mutate in turn every target. Returns {"mutations", "seconds", "failures"}."""
    start = time.monotonic()
    failures: list[Failure] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(HF_HUB_OFFLINE="1", WORKBENCH_DEVICE="cpu", WORKBENCH_IDLE="0.1")
        world = World(Path(folder))
        targets = [target for target in world.targets() if only in target.name]
        for target in targets:
            fault = attempt(target.read)
            if fault:
                failures.append({"target": target.name, "what": "unchanged", "fault": fault})
        if not only:
            failures += called(world)
        for number in range(count):
            target = targets[number % len(targets)]
            failure = one(target, random.Random(f"{seed}-{number}"))
            if failure is not None:
                failures.append({"number": number, **failure})
    return {
        "mutations": count,
        "seconds": round(time.monotonic() - start, 1),
        "failures": failures,
    }


def called(world: World) -> list[Failure]:
    """The command lines that went wrong."""
    failures = []
    for arguments in world.calls():
        fault = attempt(lambda arguments=arguments: world.command(*arguments))
        if fault:
            shown = " ".join(arguments)
            failures.append({"target": "command", "what": f"{shown:.120}", "fault": fault})
    return failures


def one(target: Target, draw: random.Random) -> Failure | None:
    """One mutation of a target; the file is as before afterwards."""
    content = target.file.read_bytes()
    what, changed = mutation(content, target.data, target.write, draw)
    target.file.write_bytes(changed)
    os.utime(target.file, (draw.randrange(10**9), draw.randrange(10**9)))
    try:
        fault = attempt(target.read)
    finally:
        target.file.write_bytes(content)
    if not fault:
        return None
    return {"target": target.name, "what": what, "fault": fault}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Part of a target's name.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = fuzz(arguments.mutations, arguments.seed, arguments.only)
    if arguments.json:
        print(json.dumps(result))
    else:
        for row, number in Counter((f["target"], f["fault"]) for f in result["failures"]).items():
            print(number, *row)
        print({**result, "failures": len(result["failures"])})
    return int(bool(result["failures"]))


if __name__ == "__main__":
    sys.exit(main())
