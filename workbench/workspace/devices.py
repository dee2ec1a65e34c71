"""The devices of this machine, each under one name. torch is not imported for that."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from ..records import BadInput

KINDS = ("cpu", "cuda", "mps")


def chosen_device(name: str = "") -> str:
    """The device of that name; of an empty one $WORKBENCH_DEVICE, else the first GPU that this torch
    can use, else the CPU. Raises BadInput.
    """
    return device_name(name or os.environ.get("WORKBENCH_DEVICE") or first_device())


def device_name(name: str) -> str:
    """The one name of a device: cpu, cuda (the first GPU), cuda:1 .., mps.

    Raises BadInput for another word, and for a GPU that this machine does not have.
    """
    kind, colon, number = name.strip().lower().partition(":")
    is_number = number.isascii() and number.isdecimal() and len(number) <= 4
    if kind not in KINDS or (colon and not is_number):
        raise BadInput(f"device {name!r}", "cpu, cuda or cuda:N", "name one of these")
    index = int(number or 0)
    if kind == "cuda":
        return gpu_name(index)
    if index > 0:
        raise BadInput(f"device {name!r}", f"{kind}: there is one only", f"use {kind}")
    return kind


def gpu_name(index: int) -> str:
    count = gpu_count()
    if count is not None and index >= count:
        last = "no GPU that this torch can use"
        if count == 1:
            last = "cuda, the only GPU"
        elif count > 1:
            last = f"cuda:0 to cuda:{count - 1}"
        raise BadInput(f"device cuda:{index} is not on this machine", last, "use another --device")
    return f"cuda:{index}" if index else "cuda"


def gpu_count() -> int | None:
    """Number of GPUs that this torch can use; None where only torch itself could say."""
    with suppress(metadata.PackageNotFoundError):
        if "+cpu" in metadata.version("torch"):
            return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])
    if sys.platform != "linux" or Path("/dev/kfd").exists() or Path("/dev/dxg").exists():
        return None  # AMD's driver and WSL show GPUs in other ways
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def first_device() -> str:
    """The first GPU where there surely is one, else the CPU."""
    return "cuda" if gpu_count() else "cpu"
