"""The command line in this process, and tiny models to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import command, home, tiny
from tests.tiny import tiny_transformer

__all__ = ["command", "home", "tiny"]

Copy = Callable[[], Path]


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer folder of two blocks."""
    folder = tmp_path_factory.mktemp("weights") / "transformer"
    tiny_transformer(depth=2).save_pretrained(folder)
    return folder


@pytest.fixture
def transformer(weights: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(weights, tmp_path / "transformer"))


@pytest.fixture
def pipeline(tiny: Path, tmp_path: Path) -> Path:
    """A copy of a whole pipeline, to change."""
    return Path(shutil.copytree(tiny, tmp_path / "pipeline"))
