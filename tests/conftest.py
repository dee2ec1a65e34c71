"""Settings of the whole suite: threads, bytecode, random examples, which tests are quick, which
run alone.

One thread for tiny models, here and in every child process: on them a second one costs more than it
brings. Bytecode is kept, also where the environment says otherwise, as images of containers do:
hundreds of child processes would each compile the workbench again. And the same random examples on
every machine, so that a failure can be repeated anywhere.
"""

import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from workbench.plugins import KINDS, files, registry

ROOT = Path(__file__).parent
# Folders whose tests take milliseconds each: with the files beside this one, `make quick`.
QUICK = {"charts", "plans", "plugins", "recipes", "records", "rules", "specs", "tasks"}
# Folders that start workers, browsers and kernels, and wait for them: one test at a time.
ALONE = {"notebooks", "ui", "workspace"}

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark quick tests."""
    for item in items:
        folder = folder_of(item.nodeid)
        slow = item.get_closest_marker("slow") or item.get_closest_marker("browser")
        if (not folder or folder in QUICK) and not slow:
            item.add_marker(pytest.mark.quick)


def folder_of(test: str) -> str:
    """tests/ui/test_browser.py::test_x -> ui; empty for a file beside this one."""
    parts = test.partition("::")[0].split("/")
    return parts[1] if len(parts) > 2 else ""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """A file's tests share a process, and so their fixtures; all that run alone share one.

    By path: groups by mark (`--dist loadgroup`) are lost between pytest-xdist 3.8 and pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "alone" if folder_of(nodeid) in ALONE else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(autouse=True)
def rows_and_plugins_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers, loads or takes back is gone, or there again, for the next one."""
    monkeypatch.setattr(files, "_loaded", list(files._loaded))
    for kind in KINDS:
        table = registry(kind)
        monkeypatch.setattr(table, "_registered", dict(table._registered))


@pytest.fixture(autouse=True)
def few_timed_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison times each model by as few steps as it may: no test asks how long they took."""
    timing = sys.modules.get("workbench.comparison.timing")
    if timing:
        monkeypatch.setattr(timing, "ROUNDS", timing.LEAST)
