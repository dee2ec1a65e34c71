"""Every notebook runs from top to bottom, on a tiny teacher and a few steps."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tiny import tiny_qwen_pipeline
from workbench.workspace.store import Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_qwen_pipeline(tmp_path / "teacher", depth=6)
    for key, value in {
        "WORKBENCH_NOTEBOOK_TEACHER": str(tmp_path / "teacher"),
        "WORKBENCH_NOTEBOOK_QUICK": "1",
        "OMP_NUM_THREADS": "2",
        "WORKBENCH_WORKSPACE": str(tmp_path / "workspace"),
        "WORKBENCH_DEVICE": "cpu",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }.items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    text = "".join(
        out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", [])
    )
    expected = {"01-compress-the-demo": "first_loss", "02-sensitivity": "scores of invented"}
    assert expected[path.stem] in text
    assert invented_records(tmp_path / "workspace") == []


def invented_records(workspace: Path) -> list[str]:
    """Maps in the workspace under the name of a model that the notebook has not measured."""
    store = Store(workspace)
    return [entry.teacher for entry in store.maps() if not Path(entry.teacher).is_dir()]


def test_notebooks_are_stored_without_outputs():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert not [
            c
            for c in nbformat.read(path, as_version=4).cells
            if c.get("outputs") or c.get("execution_count")
        ]
