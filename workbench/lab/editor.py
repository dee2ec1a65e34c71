"""The editor of plans: a map to click on, buttons that mark, and the plan beneath."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import altair as alt
import ipywidgets as widgets

from .. import charts, plans
from ..charts import view
from ..charts.view import Look
from ..plans.editing import marks, span_fields
from ..plans.editing.selection import edited_origin
from ..records import BadInput, Plan, SensitivityMap, Teacher
from .edit_controls import Hand
from .inputs import chart_widget


class Editor(widgets.VBox):
    """Map above, plan beneath: a chart of its own, so that a mark does not draw the map again.

    The controls under the map choose the edit shown and the colour scale; the row under the marks
    says what the selected student blocks are made of.
    """

    def __init__(self, look: Look, plan: Plan | None, edit: str, width: int):
        self.look = look
        self.teacher = look.teacher
        self.width = width
        if plan is None:
            plan = plans.identity(look.teacher)
        self.history: list[Plan] = [plans.check(plan, look.teacher)]
        self.selected: list[int] = []  # places on the block axis
        if edit not in look.edits and edit != "drop":
            raise BadInput(
                f"the map has no edit {edit!r}", "one of " + ", ".join(look.edits), "choose one"
            )
        chart = view.map_chart(look, edit, toggles=True, params=True, width=width)
        self.map = chart_widget(chart)
        self.map.selections.observe(self.on_select, ["pick", "box"])
        self.picture = chart_widget(self.plan_chart(charts.plan_rows(self.plan, self.teacher)))
        self.message = widgets.HTML()
        self.budget = widgets.HTML()
        self.hand = Hand(self.change)
        self.build_buttons()
        self.show()
        tools = widgets.HBox([*self.buttons.values(), self.free, self.message])
        super().__init__([self.map, tools, self.hand, self.picture, self.budget])

    def build_buttons(self) -> None:
        self.buttons: dict[str, widgets.Button] = {}
        for mark in marks.MARKS:
            self.buttons[mark] = button(mark, "80px", partial(self.mark, mark))
        self.buttons["undo"] = button("undo", "80px", self.undo)
        self.free = button("drop unused parts", "140px", self.drop_unused)

    @property
    def plan(self) -> Plan:
        """The plan as it is now."""
        return self.history[-1]

    # --- selecting --------------------------------------------------------------------------------

    def select(self, blocks: dict[str, list[int]]) -> None:
        """Select blocks by number (stack path -> blocks), as a click would."""
        offsets = charts.offsets(self.teacher)
        self.selected = []
        for path, numbers in blocks.items():
            self.selected += [offsets[path] + number for number in numbers]
        self.show()

    def on_select(self, _: Any) -> None:
        """Selected are the clicked blocks and those that the box touches."""
        selections: Any = self.map.selections
        places = {int(row["at"]) for row in selections.pick.value or [] if "at" in row}
        low, high = (selections.box.value or {}).get("at", (0.0, 0.0))
        for place in range(sum(stack.depth for stack in self.teacher.stacks)):
            if place + 1 > low and place < high:
                places.add(place)
        self.selected = sorted(places)
        self.show()

    @property
    def selection(self) -> dict[str, list[int]]:
        """Stack path -> selected blocks."""
        offsets = charts.offsets(self.teacher)
        selection = {}
        for stack in self.teacher.stacks:
            numbers = [place - offsets[stack.path] for place in self.selected]
            selection[stack.path] = [number for number in numbers if 0 <= number < stack.depth]
        return selection

    # --- changing ---------------------------------------------------------------------------------

    def mark(self, mark: str) -> None:
        """Keep, drop or merge the selected blocks; what cannot be done is shown as one line."""
        self.apply(lambda: marks.edit(self.plan, self.teacher, self.checked_selection(), mark))

    def change(self, **what: Any) -> None:
        """Change what the selected student blocks are made of: stream, init, gain, modulation, drop,
        restore (see `plans.editing.span_fields.change`).
        """
        self.apply(
            lambda: span_fields.change(self.plan, self.teacher, self.checked_selection(), **what)
        )

    def drop_unused(self) -> None:
        """Drop the parts that no output depends on."""
        origin = edited_origin(self.plan)
        plan = plans.cut_free(self.plan, self.teacher).model_copy(update={"origin": origin})
        self.apply(lambda: plans.check(plan, self.teacher))

    def checked_selection(self) -> dict[str, list[int]]:
        """The selection. Raises BadInput where it is empty."""
        if not self.selected:
            raise BadInput("no block is selected", "a selection", "click or drag on the map")
        return self.selection

    def apply(self, make: Callable[[], Plan]) -> None:
        """Take the next plan into the history, or show why there is none."""
        try:
            self.history.append(make())
        except BadInput as error:
            self.show(str(error))
        else:
            self.show()

    def undo(self) -> None:
        """Take the last change back."""
        if len(self.history) > 1:
            self.history.pop()
        self.show()

    # --- showing ----------------------------------------------------------------------------------

    def plan_chart(self, rows: dict[str, charts.Rows]) -> alt.VConcatChart:
        return charts.sensitivity_chart(self.teacher, [], [], [], rows, width=self.width)

    def show(self, problem: str = "") -> None:
        """Repaint the plan, the selection and the budget; `problem` is shown in red."""
        rows = charts.plan_rows(self.plan, self.teacher)
        for row in rows["marks"]:
            row["selected"] = row["at"] in self.selected
        self.picture.chart = self.plan_chart(rows)
        blocks = ", ".join(str(row["block"]) for row in rows["marks"] if row["selected"])
        self.message.value = f"selected: {blocks or 'nothing'}"
        if problem:
            self.message.value = f"<b style='color:#d1495b'>{escape(problem)}</b>"
        self.hand.show(span_fields.state(self.plan, self.teacher, self.selection))
        self.budget.value = budget_words(self.plan, self.teacher, self.look.sensitivity)
        self.show_unused()

    def show_unused(self) -> None:
        """Offer to drop the parts that no output depends on, where there are any."""
        cuts = plans.free_cuts(self.plan, self.teacher)
        self.free.layout.display = ""
        if not cuts:
            self.free.layout.display = "none"
        self.free.tooltip = "; ".join(
            f"{cut.drop} of {cut.stack}: {cut.parameters:,} parameters" for cut in cuts
        )


def button(label: str, width: str, action: Callable[[], None]) -> widgets.Button:
    made = widgets.Button(description=label, layout={"width": width})
    made.on_click(lambda _: action())
    return made


def budget_words(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None) -> str:
    """What a plan costs, and the error predicted for it, as HTML."""
    info = plans.plan_info(plan, teacher, sensitivity)
    depths = []
    for path, count in info.depth.items():
        depth = f"{path} {count}"
        if info.single.get(path):
            depth += f" ({info.single[path]} single-stream)"
        depths.append(depth)
    words = [
        f"<b>{info.parameters / 1e6:.4g} M</b> parameters",
        f"{100 * info.ratio:.0f} % of the teacher",
        f"depth {escape(', '.join(depths))}",
        f"bf16 {info.memory['bf16'] / 1e6:.3g} MB",
    ]
    if info.error is not None:
        words.append(f"predicted error {escape(str(info.error))}")
    words.append(f"predicted speed {info.speedup:.2f}×")
    if plans.is_factored(plan):
        words.append(escape(plans.SAVES))
    return " · ".join(words)
