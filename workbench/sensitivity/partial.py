"""Scores of finished calls in a JSON file, so that a stopped or killed scan goes on, and several
processes can share one.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..models import Call
from ..models.checkpoints import raw_bytes
from ..records import write_atomic


class Partial:
    """What finished calls gave, by the identity of their inputs.

    A file of another teacher, metric or list of edits, or a torn one, counts as empty. Every write
    replaces the file whole: a kill at any moment leaves the last complete one. What other processes
    of the scan left beside it (`siblings`) counts too.
    """

    def __init__(
        self, path: Path | None, fingerprint: str, edits: Sequence[str], metric: str = "prediction"
    ) -> None:
        self.path = None if path is None else Path(path)
        self.head = {"fingerprint": fingerprint, "edits": list(edits), "metric": metric}
        self.calls: dict[str, Any] = {}
        for file in siblings(self.path) if self.path else ():
            self.calls.update(self._held(file))

    def _held(self, file: Path) -> dict[str, Any]:
        try:
            held = json.loads(file.read_text(encoding="utf-8"))
            return dict(held["calls"]) if held.get("head") == self.head else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # an unreadable partial result is measured again

    def get(self, key: str) -> dict[str, Any] | None:
        return self.calls.get(key) if self.path is not None else None

    def put(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        if self.path is not None:
            self.calls[key] = result
            write_atomic(self.path, json.dumps({"head": self.head, "calls": self.calls}))
        return result


def siblings(path: Path) -> list[Path]:
    """The partial files of one scan: `path` without a process number, and with any."""
    stem = re.sub(r"\.\d+$", "", path.name)
    return [
        file
        for file in sorted(path.parent.glob(f"{glob.escape(stem)}*"))
        if re.fullmatch(r"(\.\d+)?", file.name[len(stem) :])
    ]


def finished_calls(path: Path) -> int:
    """How many calls the partial files of a scan hold."""
    found: set[str] = set()
    for file in siblings(path):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.update(json.loads(file.read_text(encoding="utf-8"))["calls"])
    return len(found)


def identity(call: Call) -> str:
    """12 hex digits of SHA-256 over a call's inputs."""
    digest = hashlib.sha256(f"{call.timestep} {call.group} {call.branch}".encode())

    def feed(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
            digest.update(raw_bytes(value))
        elif isinstance(value, dict):
            for key in sorted(value):
                digest.update(str(key).encode())
                feed(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                feed(item)
        else:
            digest.update(repr(value).encode())

    feed(call.kwargs)
    return digest.hexdigest()[:12]
