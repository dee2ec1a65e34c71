"""A finished comparison in a notebook: pictures side by side, split, or as a difference or a grid;
scores and costs beneath.
"""

from __future__ import annotations

from html import escape
from io import BytesIO
from pathlib import Path

import ipywidgets as widgets
import numpy as np
from PIL import Image

from .. import charts
from ..records import Comparison
from .inputs import chart_widget

VIEWS = ("side by side", "split", "difference", "grid")
GAIN = 4  # of the difference, so that small ones can be seen
GRID = 8  # prompts and seeds of the grid

PADDING = "style='padding:2px 10px'"


def compare(comparison: Path | str, width: int = 300) -> Viewer:
    """A finished comparison: its folder, or its comparison.json. `width` of a picture in pixels."""
    folder = Path(comparison)
    if folder.is_file():
        folder = folder.parent
    return Viewer(folder, width)


class Viewer(widgets.VBox):
    """The same prompt and seed through every model.

    view: "side by side"; "split": one picture, left of the line the first model, right of it the
    other; "difference": the absolute difference to the first model, four times; "grid": the first
    eight prompts and seeds of all models.
    """

    def __init__(self, folder: Path, width: int):
        self.folder = folder
        self.width = width
        self.comparison = Comparison.load(folder / "comparison.json")
        self.models = list(self.comparison.images)
        self.total = max((len(files) for files in self.comparison.images.values()), default=1)
        self.at = widgets.IntSlider(0, 0, max(0, self.total - 1), description="picture")
        self.view = widgets.ToggleButtons(options=VIEWS, value=VIEWS[0])
        self.other = widgets.Dropdown(options=self.models[1:], description="against")
        self.line = widgets.IntSlider(50, 0, 100, description="line, %")
        for control in (self.at, self.view, self.other, self.line):
            control.observe(lambda _: self.show(), "value")
        self.pictures = widgets.HBox(layout={"flex_flow": "row wrap"})
        self.caption = widgets.HTML()
        self.show()
        controls = widgets.HBox([self.at, self.other, self.line])
        costs = widgets.HTML(cost_table(self.comparison))
        children = [self.view, controls, self.caption, self.pictures, costs]
        rows = charts.score_rows(self.comparison)
        if rows:
            children.append(chart_widget(charts.score_chart(rows)))
        if charts.usual_scorer([self.comparison]):
            students = charts.student_rows(self.comparison)
            children.append(chart_widget(charts.student_chart(students)))
        super().__init__(children)

    def show(self) -> None:
        """The pictures of one prompt and seed, as the view says."""
        two = len(self.models) > 1
        self.other.layout.display = (
            "" if two and self.view.value in ("split", "difference") else "none"
        )
        self.line.layout.display = "" if two and self.view.value == "split" else "none"
        self.at.layout.display = "none" if self.view.value == "grid" else ""
        self.caption.value = self.words(self.at.value)
        if self.view.value == "grid":
            self.caption.value = ""
            self.pictures.children = [self.grid()]
        elif self.view.value == "side by side" or not two:
            self.pictures.children = [self.named(model, self.at.value) for model in self.models]
        else:
            self.pictures.children = [self.pair()]

    def words(self, at: int) -> str:
        """Prompt and seed of a picture, escaped."""
        seeds = max(1, len(self.comparison.seeds))
        prompt, seed = divmod(at, seeds)
        if prompt >= len(self.comparison.prompts):
            return ""
        return f"seed {self.comparison.seeds[seed]}: {escape(self.comparison.prompts[prompt])}"

    def named(self, model: str, at: int) -> widgets.VBox:
        return widgets.VBox([widgets.Label(model), self.picture(self.file(model, at))])

    def file(self, model: str, at: int) -> Path | None:
        """The file of a model's picture; None where it has none."""
        files = self.comparison.images[model]
        if at < len(files) and (self.folder / files[at]).is_file():
            return self.folder / files[at]
        return None

    def picture(self, file: Path | None) -> widgets.Widget:
        if file is None:
            return widgets.Label("no picture")
        return widgets.Image(value=file.read_bytes(), width=self.width)

    def pair(self) -> widgets.Widget:
        """The first model and the other one in one picture: split, or their difference."""
        found = self.pixels(self.at.value, self.other.value)
        if found is None:
            return widgets.Label("no picture")
        first, other = found
        if first.shape != other.shape:
            return widgets.Label(f"{first.shape[:2]} against {other.shape[:2]} pixels")
        if self.view.value == "difference":
            label = f"|{self.models[0]} - {self.other.value}|, {GAIN} times"
            joined = difference(first, other)
        else:
            label = f"{self.models[0]} | {self.other.value}"
            joined = split(first, other, self.line.value / 100)
        return widgets.VBox(
            [widgets.Label(label), widgets.Image(value=png(joined), width=self.width)]
        )

    def worst(self, model: str = "") -> list[int]:
        """The places of the pictures, those first that differ most from the first model's (mean
        absolute difference of the pixels). model: the second one unless named.
        """
        other = model or self.models[min(1, len(self.models) - 1)]
        distances = {at: self.distance(at, other) for at in range(self.total)}
        return sorted(distances, key=lambda at: -distances[at])

    def distance(self, at: int, model: str) -> float:
        """Mean absolute difference, 0 to 255, of a model's picture to the first one's; 0 where one is
        missing or has another size.
        """
        pair = self.pixels(at, model)
        if pair is None or pair[0].shape != pair[1].shape:
            return 0.0
        return float(np.abs(pair[0].astype(np.int16) - pair[1].astype(np.int16)).mean())

    def pixels(self, at: int, model: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The first model's picture and another's, (H, W, 3) each; None where one is missing."""
        files = [self.file(self.models[0], at), self.file(model, at)]
        found = [np.asarray(Image.open(file).convert("RGB")) for file in files if file is not None]
        if len(found) < 2:
            return None
        return found[0], found[1]

    def grid(self) -> widgets.GridBox:
        """Models in columns, prompts and seeds in rows."""
        width = f"{max(80, self.width // 3)}px"
        cells: list[widgets.Widget] = [widgets.Label(model) for model in self.models]
        for at in range(min(GRID, self.total)):
            for model in self.models:
                cell = self.picture(self.file(model, at))
                cell.layout.width = width
                cells.append(cell)
        columns = f"repeat({len(self.models)}, {width})"
        return widgets.GridBox(cells, layout={"grid_template_columns": columns, "grid_gap": "4px"})


def difference(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|first - other| of two pictures (H, W, 3) in 0..255, GAIN times; equal pixels are black."""
    gap = np.abs(first.astype(np.int16) - other.astype(np.int16)) * GAIN
    return gap.clip(0, 255).astype(np.uint8)


def split(first: np.ndarray, other: np.ndarray, line: float) -> np.ndarray:
    """The first picture (H, W, 3) up to `line` (0 to 1) of the width, then the other."""
    column = round(line * first.shape[1])
    return np.concatenate([first[:, :column], other[:, column:]], axis=1)


def png(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def cost_table(comparison: Comparison) -> str:
    """Models in rows, as HTML."""
    rows = charts.cost_rows(comparison)
    if not rows:
        return ""
    head = "".join(f"<th {PADDING}>{escape(name)}</th>" for name in rows[0])
    body = ""
    for row in rows:
        cells = "".join(f"<td {PADDING}>{text_of(value)}</td>" for value in row.values())
        body += f"<tr>{cells}</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def text_of(value: object) -> str:
    """A value in a cell, escaped."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if value is None:
        return "–"
    return escape(str(value))
