"""A finished comparison in a notebook: pictures side by side, scores and costs beneath."""

from __future__ import annotations

from html import escape
from pathlib import Path

import ipywidgets as widgets

from .. import charts
from ..records import Comparison
from .inputs import chart_widget

PADDING = "style='padding:2px 10px'"


def compare(comparison: Path | str, width: int = 300) -> Viewer:
    """A finished comparison: its folder, or its comparison.json. `width` of a picture in pixels."""
    folder = Path(comparison)
    if folder.is_file():
        folder = folder.parent
    return Viewer(folder, width)


class Viewer(widgets.VBox):
    """The same prompt and seed through every model."""

    def __init__(self, folder: Path, width: int):
        self.folder = folder
        self.width = width
        self.comparison = Comparison.load(folder / "comparison.json")
        total = max((len(files) for files in self.comparison.images.values()), default=1)
        self.at = widgets.IntSlider(0, 0, max(0, total - 1), description="picture")
        self.at.observe(lambda _: self.show(), "value")
        self.pictures = widgets.HBox()
        self.caption = widgets.HTML()
        self.show()
        children = [self.at, self.caption, self.pictures, widgets.HTML(cost_table(self.comparison))]
        rows = charts.score_rows(self.comparison)
        if rows:
            children.append(chart_widget(charts.score_chart(rows)))
        super().__init__(children)

    def show(self) -> None:
        """Pictures of one prompt and seed."""
        seeds = max(1, len(self.comparison.seeds))
        prompt, seed = divmod(self.at.value, seeds)
        if prompt < len(self.comparison.prompts):
            text = escape(self.comparison.prompts[prompt])
            self.caption.value = f"seed {self.comparison.seeds[seed]}: {text}"
        self.pictures.children = [
            widgets.VBox([widgets.Label(model), self.picture(files)])
            for model, files in self.comparison.images.items()
        ]

    def picture(self, files: list[str]) -> widgets.Widget:
        """One model's picture of the prompt and seed."""
        if self.at.value < len(files):
            path = self.folder / files[self.at.value]
            if path.is_file():
                return widgets.Image(value=path.read_bytes(), width=self.width)
        return widgets.Label("no picture")


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
