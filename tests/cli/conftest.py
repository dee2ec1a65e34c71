"""The command line as a child process, on a tiny random teacher."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_qwen_pipeline
from workbench import cli

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
# what --json prints of a map, and of a plan
MAP_KEYS = {
    "map",
    "rows",
    "metric",
    "unit",
    "direction",
    "seconds",
    "block_evaluations",
    "naive_block_evaluations",
}
PLAN_KEYS = {
    "parameters",
    "teacher_parameters",
    "ratio",
    "depth",
    "single",
    "memory",
    "predicted_error",
    "predicted_speedup",
}


def environment(workspace: Path) -> dict[str, str]:
    return {
        **os.environ,
        "WORKBENCH_WORKSPACE": str(workspace),
        "WORKBENCH_DEVICE": "cpu",
        "WORKBENCH_IDLE": "0.3",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WORKBENCH_PLUGINS": str(ROOT / "tests" / "workspace" / "kinds.py"),
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_pipeline(tmp_path_factory.mktemp("tiny") / "teacher", depth=4)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def child(home: Path) -> Run:
    """`workbench ARGUMENTS` in a child process, in a folder of its own. Slow: it imports torch."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "workbench", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=home,
            env=environment(home / "workspace"),
            timeout=240,
        )

    return run


@pytest.fixture(scope="session")
def command(home: Path) -> Run:
    """The same in this process, for what does not depend on a process of its own."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        out, error = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(error),
        ):
            for name, value in environment(home / "workspace").items():
                patch.setenv(name, value)
            patch.chdir(home)
            # read from the environment when it was imported
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            code = cli.run(list(map(str, arguments)))
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), error.getvalue())

    return run


def only_json(done: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON object on stdout."""
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that refused its input, beside those of how it holds and
    samples its models.
    """
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines(keepends=True)
    errors = [line for line in lines if not line.startswith(("sampling: ", "placement"))]
    assert len(errors) == 1, done.stderr
    return errors[0]
