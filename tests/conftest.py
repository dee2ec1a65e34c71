"""Settings of the whole suite: threads, random examples, which tests are quick, which run alone.

One thread for tiny models, here and in every child process: on them a second one costs more than it
brings. And the same random examples on every machine, so that a failure can be repeated anywhere.
"""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from workbench.plugins import KINDS, files, registry

ROOT = Path(__file__).parent
# Folders whose tests take milliseconds each: with the files beside this one, `make quick`.
QUICK = {"charts", "plans", "plugins", "recipes", "records", "rules", "specs", "tasks"}
# Folders that start processes, browsers and kernels, and wait for them: one test at a time.
ALONE = {"cli", "notebooks", "ui", "workspace"}

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

settings.register_profile("steady", derandomize=True, database=None, deadline=None)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark quick tests, and give pytest-xdist its groups: a file, or all that run alone."""
    for item in items:
        path = item.path.relative_to(ROOT)
        folder = path.parts[0] if len(path.parts) > 1 else ""
        slow = item.get_closest_marker("slow") or item.get_closest_marker("browser")
        if (not folder or folder in QUICK) and not slow:
            item.add_marker(pytest.mark.quick)
        alone = folder in ALONE or item.get_closest_marker("alone") is not None
        item.add_marker(pytest.mark.xdist_group("alone" if alone else str(path)))


@pytest.fixture(autouse=True)
def rows_and_plugins_of_one_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers, loads or takes back is gone, or there again, for the next one."""
    monkeypatch.setattr(files, "_loaded", list(files._loaded))
    for kind in KINDS:
        table = registry(kind)
        monkeypatch.setattr(table, "_registered", dict(table._registered))
