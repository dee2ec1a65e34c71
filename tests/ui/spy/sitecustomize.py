"""On the path of a process: writes every host name that it looks up, or connects to, to a file.

Child processes inherit the path, so an app's workers, jobs and session are watched too. Hosts of
this machine are left out.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

LOCAL = ("localhost", "127.", "0.0.0.0", "::", "None")


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo":
        note(arguments[0])
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        note(arguments[1][0])


def note(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else str(host)
    if not name.startswith(LOCAL) and name != socket.gethostname():
        with open(os.environ["WORKBENCH_SPY"], "a") as file:
            file.write(f"{name} by {' '.join(sys.argv[:4])}\n")


if "WORKBENCH_SPY" in os.environ:
    sys.addaudithook(watch)
