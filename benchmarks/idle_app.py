"""How soon the app answers, and what it takes while nobody does anything:
`python benchmarks/idle_app.py [--seconds 60] [--workspace DIR]`.

Prints JSON: seconds until the first answer, with the CPU seconds of the process until then; the share
of a core that the server takes with no page open, and with one page open and visible, page by page;
the memory that it gains meanwhile, in MB a minute; the requests that the page sends in that time;
the CPU seconds of the server while the page is loaded;
and the ratio of the share with a page to the target of 2 %. Needs Chromium and Playwright.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

APP = Path(__file__).resolve().parents[1] / "app.py"
TARGET = 0.02  # of a core
PAGES = ("plan", "jobs", "compare")
Measured = dict[str, float]
REST = 15.0  # seconds until a page that was opened has all it shows, also on a busy machine


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(workspace: Path, port: int) -> tuple[subprocess.Popen[bytes], float]:
    """The app, and the seconds until its first answer."""
    command = [sys.executable, str(APP), "--workspace", str(workspace), "--port", str(port)]
    begun = time.monotonic()
    with open(workspace / "app.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return process, time.monotonic() - begun
        except OSError:
            time.sleep(0.02)
    raise SystemExit((workspace / "app.log").read_text())


def cpu(app: psutil.Process) -> float:
    times = app.cpu_times()
    return times.user + times.system


def idle(app: psutil.Process, rest: Callable[[float], object], seconds: float) -> Measured:
    """What the server takes in a time in which nothing happens. rest: waits so many milliseconds."""
    before, memory, begun = cpu(app), app.memory_info().rss, time.monotonic()
    rest(seconds * 1000)
    passed = time.monotonic() - begun
    gained = (app.memory_info().rss - memory) / 1e6
    return {
        "share_of_a_core": round((cpu(app) - before) / passed, 4),
        "mb_per_minute": round(gained / passed * 60, 2),
    }


def with_pages(app: psutil.Process, url: str, seconds: float) -> dict[str, Measured]:
    """The same with one page of the app open and visible."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    measured = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for page in PAGES:
            requests: list[Any] = []
            window = browser.new_page()
            before = cpu(app)
            window.goto(f"{url}?tab={page}")
            window.wait_for_selector("#heat", state="attached")
            window.wait_for_timeout(REST * 1000)
            loading = round(cpu(app) - before, 2)
            window.on("request", lambda request, seen=requests: seen.append(request))
            measured[page] = idle(app, window.wait_for_timeout, seconds)
            measured[page]["requests"] = len(requests)
            measured[page]["load_cpu_seconds"] = loading
            window.close()
        browser.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workspace", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process, seconds = start(options.workspace or Path(folder), port)
        try:
            app = psutil.Process(process.pid)
            result: dict[str, Any] = {
                "first_answer_seconds": round(seconds, 2),
                "first_answer_cpu_seconds": round(cpu(app), 2),
            }
            time.sleep(REST)
            result["no_page"] = idle(app, lambda rest: time.sleep(rest / 1000), options.seconds)
            result["one_page"] = with_pages(app, f"http://127.0.0.1:{port}/", options.seconds)
        finally:
            process.kill()
            process.wait()
    most = max(row["share_of_a_core"] for row in result["one_page"].values())
    print(json.dumps({**result, "target": TARGET, "ratio": round(most / TARGET, 2)}))


if __name__ == "__main__":
    main()
