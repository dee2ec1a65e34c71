"""Scores of finished calls in a JSON file, so that a stopped or killed scan goes on, and several processes can share one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import raw_bytes
from ..models import Call
from ..records import write_atomic


class Partial:
    """What finished calls gave, by the identity of their inputs.

    A file of another teacher, metric or list of edits, or a torn one, counts as empty. Every write replaces the file
    whole: a kill at any moment leaves the last complete one.
    """

    def __init__(self, path: Path | None, fingerprint: str, edits: Sequence[str], metric: str = "prediction") -> None:
        self.path = None if path is None else Path(path)
        self.head = {"fingerprint": fingerprint, "edits": list(edits), "metric": metric}
        self.calls: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
            try:
                held = json.loads(self.path.read_text(encoding="utf-8"))
                self.calls = held["calls"] if held.get("head") == self.head else {}
            except (ValueError, KeyError, AttributeError):
                self.calls = {}  # an unreadable partial result is measured again

    def get(self, key: str) -> dict[str, Any] | None:
        return self.calls.get(key) if self.path is not None else None

    def put(self, key: str, result: dict[str, Any]) -> dict[str, Any]:
        if self.path is not None:
            self.calls[key] = result
            write_atomic(self.path, json.dumps({"head": self.head, "calls": self.calls}))
        return result


def merged_partials(into: Path, others: Sequence[Path]) -> Path:
    """Add the finished calls of other partial files of the same scan to `into`; files of another scan are left out."""
    held: dict[str, Any] = {}
    for path in (into, *others):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not held or held["head"] == found["head"]:
                held = {"head": found["head"], "calls": {**held.get("calls", {}), **found["calls"]}}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    if held:
        write_atomic(into, json.dumps(held))
    return into


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
