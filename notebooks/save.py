"""Run the notebooks on the bundled teacher and keep their outputs, so that they read well where
nothing runs.

    python notebooks/save.py [NAME ..]

Widgets need a kernel and scripts from elsewhere to be drawn again. So each is stored as what it
shows: charts as pictures, texts and tables as HTML.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

import nbformat
import vl_convert
from nbclient import NotebookClient
from PIL import Image

FOLDER = Path(__file__).resolve().parent
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
COLOURS = 128  # of a stored picture
Models = dict[str, Any]


# --- widgets as HTML ------------------------------------------------------------------------------


def still(name: str, models: Models) -> str:
    """What a widget shows, as HTML. models: the notebook's widgets by id, as nbclient stores them."""
    model = models[name.removeprefix("IPY_MODEL_")]
    state = model["state"]
    if state.get("layout") and is_hidden(state["layout"], models):
        return ""
    if "spec" in state:  # a chart
        return chart(state["spec"])
    if "children" in state:
        parts = [still(child, models) for child in state["children"]]
        return box(model["model_name"], [part for part in parts if part])
    return single(model)


def single(model: dict[str, Any]) -> str:
    """A widget without children; controls show nothing."""
    state, kind = model["state"], model["model_name"]
    if kind == "HTMLModel":
        return f"<div>{state['value']}</div>" if state["value"] else ""
    if kind == "LabelModel":
        return f"<div>{escape(state['value'])}</div>" if state["value"] else ""
    if kind == "ImageModel":
        data = next(buffer["data"] for buffer in model["buffers"] if buffer["path"] == ["value"])
        return picture(base64.b64decode(data), int(state.get("width") or 0))
    if kind == "FloatProgressModel":
        return f"<div>{100 * state['value'] / state['max']:.0f} %</div>"
    return ""


def is_hidden(layout: str, models: Models) -> bool:
    """Whether a widget's layout takes it from the page."""
    state = models[layout.removeprefix("IPY_MODEL_")]["state"]
    return state.get("display") == "none" or state.get("visibility") == "hidden"


def box(kind: str, parts: list[str]) -> str:
    """The parts of a box one below the other, or as a row of a table."""
    if not parts:
        return ""
    if kind == "HBoxModel":
        cells = "".join(f"<td style='vertical-align:top'>{part}</td>" for part in parts)
        return f"<table><tr>{cells}</tr></table>"
    return "<div>" + "".join(parts) + "</div>"


def chart(spec: dict[str, Any]) -> str:
    """A chart as a picture."""
    return picture(vl_convert.vegalite_to_png(spec, scale=1.5), 0, shrink=1.5)


def picture(data: bytes, width: int, shrink: float = 1.0) -> str:
    """A picture inside the page, with few colours, since notebooks are kept in the repository."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(COLOURS).save(buffer, "PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img width="{width or round(image.width / shrink)}" src="data:image/png;base64,{text}"/>'
    )


# --- notebooks ------------------------------------------------------------------------------------


def save(path: Path) -> None:
    """Run a notebook in an empty workspace and store it with its outputs."""
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        os.environ["WORKBENCH_WORKSPACE"] = str(Path(folder) / "workspace")
        resources = {"metadata": {"path": folder}}
        NotebookClient(book, timeout=3600, kernel_name="python3", resources=resources).execute()
        tidy(book, folder)
    nbformat.write(book, path)


def tidy(book: Any, folder: str) -> None:
    """Replace widgets by what they show, and paths of this machine by where they would be."""
    widgets = book.metadata.pop("widgets", {})
    models: Models = widgets.get(STATE, {}).get("state", {})
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_kept(output)]
            for output in cell.outputs:
                tidy_output(output, models, folder)


def is_kept(output: Any) -> bool:
    """Whether an output says something to a reader: warnings and progress bars do not."""
    return output.get("name") != "stderr"


def tidy_output(output: Any, models: Models, folder: str) -> None:
    data = output.get("data", {})
    view = data.pop(VIEW, None)
    if view is not None:
        data["text/html"] = still(view["model_id"], models)
        data["text/plain"] = "(a widget: run the cell)"
    for holder in (data, output):
        for key in ("text/html", "text/plain", "text"):
            if isinstance(holder.get(key), str):
                holder[key] = without_paths(holder[key], folder)


def without_paths(text: str, folder: str) -> str:
    """The text with paths relative to the notebook's folder."""
    package = str(FOLDER.parent)
    text = text.replace(folder + "/", "").replace(folder, ".")
    return re.sub(re.escape(package) + "/?", "", text)


def main() -> None:
    named = sys.argv[1:]
    os.environ["PYTHONPATH"] = str(FOLDER.parent)
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not named or any(path.stem.startswith(name) for name in named):
            save(path)
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
