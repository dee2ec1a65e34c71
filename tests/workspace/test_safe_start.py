"""Background processes import nothing from the user's current folder, and run no model's code that
nobody allowed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workbench.tasks import profile_shards, rank_processes
from workbench.workspace import jobs, model_code, processes
from workbench.workspace.store import Store

PRINT_PATH = "import sys, pydantic; print(sys.path[0], pydantic.__file__)"


def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A real worker and a child of a child, started where a file is called like a package."""
    (tmp_path / "pydantic.py").write_text("open('ran', 'w').write('x')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    log = tmp_path / "log.txt"
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {PRINT_PATH!r}])"
    for start in (processes.start_detached, processes.start_attached):
        for arguments in (["-m", "workbench.workspace.worker", "--help"], ["-c", grandchild]):
            assert start(arguments, log).wait(120) == 0, log.read_text()
    assert not (tmp_path / "ran").exists()
    assert "usage" in log.read_text() and "site-packages" in log.read_text()


def test_every_way_to_start_a_process_takes_the_safe_variables():
    assert processes.environment()["PYTHONSAFEPATH"] == "1"
    for module in (rank_processes, profile_shards):
        assert module.environment is processes.environment


def test_a_job_may_run_code_of_models_where_who_queued_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not where the worker's environment does: the app's jobs run there, too."""
    store = Store(tmp_path)
    monkeypatch.delenv(model_code.VARIABLE, raising=False)
    without = jobs.submit(store, "info", {"teacher": "demo"}, start=False)
    monkeypatch.setenv(model_code.VARIABLE, "1")
    allowed = jobs.submit(store, "info", {"teacher": "demo"}, start=False)
    model_code.take_trust(without.folder)
    assert model_code.VARIABLE not in os.environ
    model_code.take_trust(allowed.folder)
    assert os.environ[model_code.VARIABLE] == "1"
    jobs.cancel(store, without.id)
    jobs.resume(store, without.id, start=False)
    model_code.take_trust(without.folder)
    assert os.environ[model_code.VARIABLE] == "1", "who resumes it allows it"
