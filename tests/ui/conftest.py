"""A served app in a process of its own, and a real Chromium that reports every request and every
console error.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from workbench.records import Teacher
from workbench.ui import draft
from workbench.ui.plan_page import PlanPage
from workbench.ui.plan_state import PlanState
from workbench.workspace.store import Store

from . import synthetic

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 240  # 4 on a good machine, 15 on a slow one, more where others work beside it
DESKTOP = {"width": 1400, "height": 1000}
DEEP = synthetic.teacher(60, name="deep")
TRAINED = synthetic.teacher(20, name="trained")
SERVE = "import sys; from workbench.ui import launch; launch(sys.argv[1], '127.0.0.1', int(sys.argv[2]), {})"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class App:
    """The app over one workspace; can be killed and started again on the same port."""

    def __init__(self, workspace: Path, options: str = ""):
        """options: further ones of `launch`, as Python text."""
        self.workspace, self.port, self.options = workspace, free_port(), options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> App:
        teacher = Teacher.load(self.workspace / "teachers" / "synthetic.json")
        # the teacher worked on last is shown, not the bundled one
        if draft.load(self.workspace, teacher).version == 0:
            draft.change(self.workspace, teacher, 0, lambda begun: begun)
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "WORKBENCH_DEVICE": "cpu",
            "WORKBENCH_SESSION_IDLE": "5",
        }
        with open(self.workspace / "app.log", "ab") as log:
            command = [
                sys.executable,
                "-c",
                SERVE.format(self.options),
                str(self.workspace),
                str(self.port),
            ]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
                return self
            except OSError:
                time.sleep(0.2)
        code = self.process.poll()
        self.kill()
        ended = "is not reached" if code is None else f"ended with {code}"
        raise RuntimeError(f"the app {ended}: {(self.workspace / 'app.log').read_text()}")

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


def fill(workspace: Path, depth: int) -> Path:
    """A workspace with one synthetic teacher and its map."""
    teacher = synthetic.teacher(depth)
    teacher.save(workspace / "teachers" / "synthetic.json")
    synthetic.sensitivity(teacher).save(workspace / "sensitivity" / "synthetic.json")
    return workspace


def add_others(workspace: Path) -> None:
    """A teacher of two stacks with several maps, one whose blocks share their modulation, a deep
    one, and one whose spans were trained.
    """
    flux = synthetic.flux()
    maps = {
        "full": synthetic.full(flux),
        "imported": synthetic.imported(flux),
        "spans": synthetic.spans(flux),
        "deep": synthetic.sensitivity(DEEP),
        "trained": synthetic.sensitivity(TRAINED),
        "recovery": synthetic.recovery(TRAINED),
    }
    shared = synthetic.without_modulation()
    for teacher in (flux, shared, DEEP, TRAINED):
        teacher.save(workspace / "teachers" / f"{teacher.fingerprint}.json")
    for name, record in maps.items():
        record.save(workspace / "sensitivity" / f"{name}.json")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A workspace with a synthetic teacher of 24 blocks and its map."""
    return Store(fill(tmp_path, 24))


@contextmanager
def built_page(store: Store) -> Iterator[PlanPage]:
    """The plan page with its widgets, outside a served app."""
    import gradio as gr

    with gr.Blocks():
        page = PlanPage(PlanState(store))
        page.build()
        page.build_yaml()
        yield page


@lru_cache(maxsize=1)
def started() -> tuple[Any, Any]:
    """One browser for the whole run, whichever folders' tests ask for it: Playwright starts once
    per thread.
    """
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    manager = sync_playwright().start()
    browser = manager.chromium.launch(executable_path=path, args=FLAGS)
    return manager, browser


@pytest.fixture(scope="session")
def chromium() -> object:
    """A browser; skipped loudly where there is none, an error under CI."""
    try:
        return started()[1]
    except Exception as error:  # no package, no browser, or one that does not start
        message = f"NO BROWSER: browser tests did not run ({type(error).__name__}: {str(error).splitlines()[0]})"
        return pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def pytest_sessionfinish() -> None:
    if started.cache_info().currsize:  # not at exit: Playwright would wait for its loop for ever
        manager, browser = started()
        browser.close()
        manager.stop()


@lru_cache(maxsize=1)
def profile_of(browser: Any) -> Any:
    """What all tabs share, as those of one person do: an app's scripts are fetched and compiled once."""
    return browser.new_context(viewport=DESKTOP)


class Tab:
    """A page that remembers every address it asked for and every error it printed."""

    def __init__(
        self,
        browser: object,
        url: str,
        color_scheme: str = "light",
        viewport: dict[str, int] = DESKTOP,
    ):
        self.context = profile_of(browser)
        self.page = self.context.new_page()
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(color_scheme=color_scheme)
        self.page.set_default_timeout(90_000)  # a busy machine is slow, not wrong
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on(
            "console", lambda line: self.noted(line.text) if line.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.noted(str(error)))
        self.page.goto(url)

    def close(self) -> None:
        self.page.close()

    def reload(self) -> None:
        """Load the page again. What the page that is left prints about its broken requests (the
        text differs with the moment) is no error.
        """
        before = list(self.errors)
        self.page.reload()
        self.errors = before

    def noted(self, error: str) -> None:
        """An error of the page; requests that a stopped app broke off are none."""
        if "AbortError" not in error and "errored out" not in error:
            self.errors.append(error)

    @property
    def outside(self) -> list[str]:
        return [
            url
            for url in self.asked
            if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))
        ]


@pytest.fixture
def open_tab(chromium: object) -> Iterator[object]:
    tabs: list[Tab] = []

    def opened(url: str, **options: object) -> Tab:
        tabs.append(Tab(chromium, url, **options))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.close()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on a synthetic teacher of 24 blocks, with the other teachers that tests look at."""
    workspace = fill(tmp_path_factory.mktemp("workspace"), 24)
    add_others(workspace)
    served = App(workspace).start()
    yield served
    served.kill()
