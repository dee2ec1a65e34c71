"""The wheel: what `pip wheel` makes of this tree runs away from it, with its weights, pages and
scripts inside.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

from tests.students.helpers import bare_environment
from tests.ui.conftest import free_port
from tests.workspace.conftest import until
from workbench import __version__, tasks
from workbench.specs import PlanSpec

ROOT = Path(__file__).parents[2]
MAKE = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy, since setuptools writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(
        ROOT / "workbench", tree / "workbench", ignore=shutil.ignore_patterns("__pycache__")
    )
    made = subprocess.run(
        [sys.executable, "-c", MAKE, str(folder)], cwd=tree, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    return folder / made.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel's files, as pip unpacks them."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command line in an environment that has every library, and of this package the wheel."""
    return subprocess.run(
        [str(bare_environment()), "-m", "workbench", *words],
        cwd=folder,
        env=environment(installed, folder),
        capture_output=True,
        text=True,
        timeout=300,
    )


def environment(installed: Path, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(installed),
        "WORKBENCH_WORKSPACE": str(folder / "workspace"),
        "HF_HUB_OFFLINE": "1",
    }


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "workbench"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
    in_tree = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    assert in_tree <= held
    assert {name for name in held - in_tree if not (ROOT / name).exists()} == set()


def test_it_is_small_enough_for_an_index_and_says_its_version(wheel: Path) -> None:
    assert wheel.stat().st_size < 60e6, "docs/install.md says how large it is"
    assert wheel.name.startswith(f"dit_workbench-{__version__}-py3-none-any")


def test_away_from_the_tree_it_builds_a_student(installed: Path, tmp_path: Path) -> None:
    spec = PlanSpec(teacher="demo-12", rule="uniform", keep="6", out=str(tmp_path / "p.yaml"))
    tasks.run("plan", spec, tmp_path / "workspace")
    built = run(installed, tmp_path, "build", "p.yaml", "-o", "student", "--json")
    assert built.returncode == 0, built.stderr
    assert json.loads(built.stdout)["parameters"] < 8e6
    assert (tmp_path / "student" / "transformer" / "config.json").is_file()


def test_away_from_the_tree_the_app_answers(installed: Path, tmp_path: Path) -> None:
    port = free_port()
    with open(tmp_path / "log.txt", "wb") as log:
        app = subprocess.Popen(
            [str(bare_environment()), "-m", "workbench", "app", "--port", str(port)],
            cwd=tmp_path,
            env=environment(installed, tmp_path),
            stdout=log,
            stderr=log,
        )

    def page() -> str:
        assert app.poll() is None, (tmp_path / "log.txt").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    try:
        until(lambda: "DiT Workbench" in page(), seconds=240)
    finally:
        app.kill()
        app.wait(10)
