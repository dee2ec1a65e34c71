"""The row of controls under the editor's marks: what the selected student blocks are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import ipywidgets as widgets

from ..plans.editing import span_fields
from ..records import Init


class Hand(widgets.HBox):
    """Each control changes the plan at once, through `change(stream=, init=, gain=, modulation=,
    drop=, restore=)`.
    """

    def __init__(self, change: Callable[..., None]):
        self.change = change
        self.painting = False  # the controls are being set, not used
        self.stream = widgets.Dropdown(
            options=["", *span_fields.STREAMS], description="stream", layout={"width": "160px"}
        )
        self.init = widgets.Dropdown(
            options=["", *get_args(Init)], description="init", layout={"width": "160px"}
        )
        self.gain = widgets.Combobox(
            options=["1", "2", "3", "length"],
            description="gain",
            continuous_update=False,
            layout={"width": "160px"},
        )
        self.modulation = widgets.Dropdown(description="modulation", layout={"width": "280px"})
        self.no_modulation = widgets.Label(layout={"display": "none"})
        self.controls = {
            "stream": self.stream,
            "init": self.init,
            "gain": self.gain,
            "modulation": self.modulation,
        }
        self.parts = widgets.HBox(layout={"flex_flow": "row wrap"})
        self.parts_label = widgets.Label("dropped parts:")
        for name, control in self.controls.items():
            control.observe(lambda event, name=name: self.on_change(name, event["new"]), "value")
        super().__init__(
            [
                *self.controls.values(),
                self.no_modulation,
                self.parts_label,
                self.parts,
            ],
            layout={"flex_flow": "row wrap"},
        )

    def on_change(self, name: str, value: Any) -> None:
        if value and not self.painting:
            self.change(**{name: value})

    def on_part(self, part: str, dropped: bool) -> None:
        if self.painting:
            return
        if dropped:
            self.change(drop=[part])
        else:
            self.change(restore=[part])

    def show(self, common: span_fields.State) -> None:
        """The controls for the selected student blocks; what they do not share is empty."""
        self.painting = True
        self.stream.disabled = common.count == 0 or not common.single
        self.init.disabled = common.count == 0 or common.init is None
        self.gain.disabled = common.count == 0
        self.modulation.options = [("", ""), *common.modulations]
        self.modulation.disabled = common.count == 0 or common.no_modulation != ""
        self.show_no_modulation(common.no_modulation)
        for name, control in self.controls.items():
            control.value = getattr(common, name) or ""
        self.parts_label.layout.display = "" if common.parts else "none"
        self.parts.children = [self.part_box(part, part in common.drop) for part in common.parts]
        self.painting = False

    def show_no_modulation(self, reason: str) -> None:
        """Why the selected blocks can have no rank of modulation; nothing where they can."""
        self.no_modulation.value = ""
        self.no_modulation.layout.display = "none"
        if reason:
            self.no_modulation.value = f"no rank: {reason}"
            self.no_modulation.layout.display = ""

    def part_box(self, part: str, dropped: bool) -> widgets.Checkbox:
        box = widgets.Checkbox(dropped, description=part, indent=False, layout={"width": "auto"})
        box.observe(lambda event: self.on_part(part, event["new"]), "value")
        return box
