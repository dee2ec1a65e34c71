"""Scores of finished calls on disk, so that a stopped or killed scan continues, and several
processes can share one.

One JSON object a line: first what the scan is, then one line per finished call. A line is appended
when its call is finished, so that a scan of n calls writes n lines and not n^2; a line that a kill
tore is measured again.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..models.checkpoints import raw_bytes
from ..models.sampling import Call
from ..records import jsonfile, write_atomic


class Partial:
    """What finished calls gave, by the identity of their inputs.

    `path` None keeps nothing. A file of another teacher, metric or list of edits, or of a scan run
    in another way (`how`), counts as empty and is replaced. What other processes of the same scan left beside it (`siblings`) is read too.
    """

    def __init__(
        self,
        path: Path | None,
        fingerprint: str = "",
        edits: Sequence[str] = (),
        metric: str = "prediction",
        **how: Any,
    ) -> None:
        self.path = path
        self.head = {"fingerprint": fingerprint, "edits": list(edits), "metric": metric, **how}
        self.calls: dict[str, Any] = {}
        self._started = False  # whether the file's first line is this scan's
        if path is not None:
            for file in siblings(path):
                self.calls.update(self._read(file))

    def _read(self, file: Path) -> dict[str, Any]:
        head, calls = read(file)
        if head != self.head:
            return {}
        if file == self.path:
            self._started = True
        return calls

    def get(self, key: str) -> Any | None:
        """What a finished call gave; None where it is not finished."""
        return self.calls.get(key)

    def put(self, key: str, result: Any) -> None:
        """Append a finished call."""
        if self.path is None:
            return
        if not self._started:
            write_atomic(self.path, json.dumps({"head": self.head}) + "\n")
            self._started = True
        self.calls[key] = result
        with open(self.path, "a", encoding="utf-8") as file:
            # The line break goes first: it also ends a line that a kill tore.
            file.write("\n" + json.dumps({"call": key, "result": result}) + "\n")


def read(file: Path) -> tuple[Any, dict[str, Any]]:
    """A partial file's head and its calls; None and nothing where it is none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None, {}
    head = None
    calls: dict[str, Any] = {}
    for line in lines:
        try:
            entry = jsonfile.parse(line)
        except jsonfile.JSONError:
            continue  # empty, or torn by a kill
        if not isinstance(entry, dict):
            continue
        if isinstance(entry.get("call"), str) and "result" in entry:
            calls[entry["call"]] = entry["result"]
        elif "head" in entry and "calls" not in entry:
            head = entry["head"]
    return head, calls


def siblings(path: Path) -> list[Path]:
    """The partial files of one scan: `path` without a process number, and with any."""
    stem = re.sub(r"\.\d+$", "", path.name)
    return [
        file
        for file in sorted(path.parent.glob(f"{glob.escape(stem)}*"))
        if re.fullmatch(r"(\.\d+)?", file.name[len(stem) :])
    ]


def finished_calls(path: Path) -> int:
    """How many different calls the partial files of a scan hold."""
    calls: set[str] = set()
    for file in siblings(path):
        calls.update(read(file)[1])
    return len(calls)


def identity(call: Call) -> str:
    """12 hex digits of SHA-256 over a call's inputs."""
    digest = hashlib.sha256(f"{call.timestep} {call.group} {call.branch}".encode())
    _feed(digest, call.kwargs)
    return digest.hexdigest()[:12]


def _feed(digest: hashlib._Hash, value: Any) -> None:
    """Add tensors by type, shape and bytes, containers item by item, the rest by repr."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(raw_bytes(value))
    elif isinstance(value, dict):
        for key in sorted(value):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
