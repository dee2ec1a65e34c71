"""A folder is written whole or not at all, whatever happens to its writer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.models import file_io


def folder_of(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "file").write_text(text)
    return path


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_finished_draft_takes_the_place_of_the_older_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(file_io, "exchange", lambda one, two: False)
    out = folder_of(tmp_path / "out", "old")
    with file_io.draft_folder(out) as draft:
        folder_of(draft, "new")
        assert (out / "file").read_text() == "old"
    assert (out / "file").read_text() == "new" and os.listdir(tmp_path) == ["out"]


def test_a_writer_that_fails_leaves_the_older_folder_alone(tmp_path: Path) -> None:
    out = folder_of(tmp_path / "out", "old")
    with pytest.raises(ZeroDivisionError), file_io.draft_folder(out) as draft:
        folder_of(draft, "half")
        raise ZeroDivisionError
    assert (out / "file").read_text() == "old" and os.listdir(tmp_path) == ["out"]


def test_drafts_of_ended_writers_go_and_those_of_running_ones_stay(tmp_path: Path) -> None:
    folder_of(tmp_path / f".out.partial-{ended_process()}", "half")
    running = folder_of(tmp_path / f".out.partial-{os.getppid()}", "half")
    file_io.sweep(tmp_path / "out")
    assert os.listdir(tmp_path) == [running.name]


def test_a_folder_that_stood_aside_for_a_killed_writer_comes_back(tmp_path: Path) -> None:
    folder_of(tmp_path / f".out.old-{ended_process()}", "old")
    file_io.sweep(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "old"
