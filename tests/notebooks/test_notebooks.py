"""Every notebook runs from top to bottom, on a tiny teacher and a few steps."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.tiny import tiny_qwen_pipeline
from workbench.workspace.store import Store

ROOT = Path(__file__).resolve().parents[2]


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXPECTED = {  # what each prints
    "01-sensitivity": "higher = keep",
    "02-plan": "edited: by hand",
    "03-distill": "first_loss",
    "04-compare": "higher = more alike",
    "05-reproduce": "the page: report index.html",
    "06-your-own": "last_loss",
    "07-published-map": "scores of invented",
}
WIDGETS = """
from io import BytesIO
from pathlib import Path
import altair as alt, ipywidgets as w
from PIL import Image
buffer = BytesIO()
Image.new("RGB", (4, 4)).save(buffer, "PNG")
chart = alt.JupyterChart(alt.Chart(alt.Data(values=[{"x": 1}])).mark_bar().encode(x="x:Q"))
row = w.HBox([w.Label("1 < 2"), w.Image(value=buffer.getvalue())])
w.VBox([w.HTML("<b>bold</b>" + str(Path("x").absolute())), row, chart, w.Button(),
        w.Label("hidden", layout={"display": "none"})])
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_qwen_pipeline(tmp_path / "teacher", depth=6)
    for key, value in {
        "WORKBENCH_NOTEBOOK_TEACHER": str(tmp_path / "teacher"),
        "WORKBENCH_NOTEBOOK_QUICK": "1",
        "OMP_NUM_THREADS": "1",
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
    assert EXPECTED[path.stem] in text
    assert invented_records(tmp_path / "workspace") == []


def invented_records(workspace: Path) -> list[str]:
    """Maps in the workspace under the name of a model that the notebook has not measured."""
    store = Store(workspace)
    measured = [entry.teacher for entry in store.maps()]
    return [name for name in measured if name != "demo" and not Path(name).is_dir()]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_stored_as_what_it_shows(path: Path):
    notebook = nbformat.read(path, as_version=4)
    assert len(notebook.cells) <= 15
    assert path.stat().st_size < 1e6
    assert "widgets" not in notebook.metadata
    stored = path.read_text()
    for private in (str(ROOT), "/tmp/", "/home/", "widget-view", "Traceback"):
        assert private not in stored
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code), "python notebooks/save.py"
    for number, cell in enumerate(code, start=1):
        assert cell.execution_count == number, "run from top to bottom, once"


def test_a_stored_widget_is_what_it_shows(tmp_path: Path):
    spec = importlib.util.spec_from_file_location("save", ROOT / "notebooks" / "save.py")
    assert spec is not None and spec.loader is not None
    save = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(save)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WIDGETS)])
    NotebookClient(
        book, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    save.tidy(book, str(tmp_path))
    [shown] = book.cells[0].outputs
    html = shown["data"]["text/html"]
    assert "<b>bold</b>" in html and "1 &lt; 2" in html
    assert html.count("<img") == 2, "a chart and a picture"
    assert "hidden" not in html and str(tmp_path) not in html
