"""Page "Sensitivity & plan": the map, the marks, the budget; the panels beneath share its state.
The plan itself lives on disk (draft.py).

Handlers answer with what changed, by widget name; `named` turns that into what Gradio wants. Tests
call the handlers as they are.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import gradio as gr

from .. import charts, plans
from ..charts.view import GIVEN, Look, default_colour, default_edit, map_chart, measures
from ..plans.editing import marks
from ..records import BadInput
from ..workspace.store import Store
from . import catalogue, draft, view
from .block_panel import BlockPanel
from .components import LAST, OPEN, QUIET, plan_map
from .draft import Draft
from .hand_panel import HandPanel
from .map_view import look
from .maps_panel import MapsPanel
from .picture_panel import PicturePanel
from .preview_panel import PreviewPanel
from .rules_panel import RulesPanel
from .text import notice, problem

EMPTY = (
    "No sensitivity map of this teacher yet. Choose “Profile” below to measure one; "
    "meanwhile you can plan by hand, "
    "or propose even spans."
)
# the browser fills in the plan
NOTHING: dict[str, charts.Rows] = {"marks": [], "ribbons": [], "student": []}
Changes = dict[str, Any]  # widget name -> its new value


class PlanPage:
    """Widgets of the page and what they do. `launch_panel` and the panels read `self.teacher` and
    friends.
    """

    def __init__(self, store: Store):
        self.store = store
        self.widgets: dict[str, Any] = {}
        self.hand, self.rules, self.block = HandPanel(self), RulesPanel(self), BlockPanel(self)
        self.maps, self.picture, self.preview = (
            MapsPanel(self),
            PicturePanel(self),
            PreviewPanel(self),
        )

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        choices = catalogue.teachers(self.store)
        with gr.Row(elem_classes="wb-bar"):
            self.teacher = gr.Dropdown(
                choices,
                label="Teacher",
                value=None,
                elem_id="teacher",
                scale=3,
                min_width=180,
                **OPEN,
            )
            self.map = gr.Dropdown(
                [],
                label="Sensitivity map",
                value=None,
                elem_id="map",
                scale=4,
                min_width=180,
                **OPEN,
            )
            self.edit = gr.Dropdown(
                ["drop", "merge"],
                value="drop",
                label="Edit shown",
                elem_id="edit",
                scale=1,
                min_width=130,
                **OPEN,
            )
            self.weighting = gr.Dropdown(
                [*plans.WEIGHTINGS, GIVEN],
                value="normalised",
                label="Timesteps weigh",
                elem_id="weighting",
                scale=2,
                min_width=130,
            )
            self.given = gr.Textbox(
                "1000=1, 0=0",
                label="Weights: timestep=weight, …",
                elem_id="given",
                visible=False,
                scale=2,
                min_width=160,
            )
            self.colour = gr.Radio(
                ["log", "linear"],
                value="log",
                label="Colour",
                elem_id="colour",
                scale=1,
                min_width=170,
            )
        self.budget = gr.HTML(elem_id="budget")
        self.message = gr.HTML(elem_id="message")
        self.heat = plan_map(elem_id="heat", container=False)
        self.about = gr.HTML(elem_id="map-about")
        self.tools()
        self.hand.build()
        with gr.Tabs(elem_id="work"):
            with gr.Tab("Propose", id="propose"):
                self.rules.build()
            with gr.Tab("Block", id="block") as self.block.tab:
                self.block.build()
            with gr.Tab("Two maps", id="maps") as self.maps.tab:
                self.maps.build()
            with gr.Tab("Picture & changes", id="picture") as self.picture.tab:
                self.picture.build()
            with gr.Tab("Preview", id="preview"):
                self.preview.build()
            with gr.Tab("Table", id="table"):
                gr.HTML(
                    "<div class='wb-about'>The map and the plan in words, for keyboards and "
                    "screen readers.</div>"
                )
                self.boxes = gr.CheckboxGroup([], label="Select blocks", elem_id="boxes")
                self.table = gr.HTML(elem_id="block-table")
        self.known = gr.State("")
        self.timer = gr.Timer(2.0)

    def tools(self) -> None:
        with gr.Row(elem_classes="wb-bar wb-tools"):
            self.keep = gr.Button(
                "Keep (K)", elem_id="mark-keep", size="sm", min_width=80, elem_classes="keep"
            )
            self.drop = gr.Button(
                "Drop (D)", elem_id="mark-drop", size="sm", min_width=80, elem_classes="drop"
            )
            self.merge = gr.Button(
                "Merge (M)", elem_id="mark-merge", size="sm", min_width=80, elem_classes="merge"
            )
            self.undo = gr.Button("Undo (U)", elem_id="undo", size="sm", min_width=80)
            self.redo = gr.Button("Redo", elem_id="redo", size="sm", min_width=80)
            self.reset = gr.Button("Keep all", elem_id="reset", size="sm", min_width=80)
            self.hand.offer()
            self.chosen = gr.HTML(elem_id="chosen")

    # --- wiring -----------------------------------------------------------------------------------

    @property
    def sight(self) -> list[Any]:
        """Inputs of `self.look`."""
        return [self.teacher, self.map, self.weighting, self.given]

    def wire(self, demo: gr.Blocks, header: gr.HTML, yaml: gr.Code) -> None:
        """Connect events. `header` and `yaml` stand elsewhere on the page."""
        shown = {
            "heat": self.heat,
            "budget": self.budget,
            "yaml": yaml,
            "table": self.table,
            "boxes": self.boxes,
            "chosen": self.chosen,
            "message": self.message,
            **self.hand.widgets(),
        }
        frame = {
            "teacher": self.teacher,
            "map": self.map,
            "edit": self.edit,
            "colour": self.colour,
            "given": self.given,
            "about": self.about,
            "header": header,
            "known": self.known,
            **self.rules.frame(),
            **self.maps.frame(),
            **self.picture.frame(),
        }
        self.widgets = {**frame, **shown}
        self.shown, self.everything = list(shown.values()), list(self.widgets.values())
        choices = [self.teacher, self.map, self.edit, self.colour, self.weighting, self.given]
        demo.load(self.named(self.on_load), choices, self.everything, **QUIET)
        redraw, on, to = (
            self.named(self.on_switch),
            [self.edit, self.colour],
            [self.heat, self.message],
        )
        for changed, handler in ((self.teacher, self.on_teacher), (self.map, self.on_map)):
            answered = changed.input(self.named(handler), choices, self.everything, **LAST)
            # the drawing shows what is chosen now, also where it was chosen in between
            answered.then(redraw, on, to, **QUIET)
        for switch in (self.edit, self.colour):
            switch.input(redraw, on, to, **LAST)
        for event in (self.weighting.input, self.given.submit, self.given.blur):
            event(self.named(self.on_weighting), [self.heat, *choices], self.everything, **LAST)
        at = [self.heat, *self.sight]
        for button, mark in ((self.keep, "keep"), (self.drop, "drop"), (self.merge, "merge")):
            button.click(self.named(self.marker(mark)), at, self.shown, **QUIET)
        for button, how in ((self.undo, Draft.back), (self.redo, Draft.forth), (self.reset, None)):
            button.click(self.named(self.stepper(how)), at, self.shown, **QUIET)
        picked = [self.boxes, self.chosen, self.message, *self.hand.widgets().values()]
        self.heat.select(self.named(self.on_select), at, picked, **LAST)
        self.boxes.input(self.named(self.on_boxes), [self.boxes, *at], [self.heat, *picked], **LAST)
        self.timer.tick(
            self.named(self.on_tick), [self.known, self.heat, *choices], self.everything, **QUIET
        )
        for panel in (self.hand, self.rules, self.block, self.maps, self.picture, self.preview):
            panel.wire()

    def named(self, handler: Callable[..., Changes]) -> Callable[..., Any]:
        """The handler with its answer by widget, as Gradio takes it; an empty answer changes
        nothing.
        """

        def answered(*values: Any) -> Any:
            try:
                found = handler(*values)
            except (
                Exception
            ) as error:  # a fault of ours: the page stays as it is, the log has the rest
                traceback.print_exc()
                found = {
                    "message": problem(
                        f"this did not work ({type(error).__name__}: "
                        f"{str(error)[:200]}); the app's log says more"
                    )
                }
            changes = {self.widgets[name]: value for name, value in found.items()}
            return changes or {self.heat: gr.skip()}

        answered.__name__ = getattr(handler, "__name__", "handler")
        return answered

    # --- what is shown ----------------------------------------------------------------------------

    def look(
        self, key: str | None, chosen_map: str | None, weighting: str, given: str = ""
    ) -> Look:
        return look(self.store, key, chosen_map, weighting, given)

    def on_load(self, key: str | None, *rest: Any) -> Changes:
        """First paint, and after each reload: everything comes from disk."""
        choices = catalogue.teachers(self.store)
        values = [value for _, value in choices]
        last = draft.latest(self.store.workspace)
        by_name = next((v for v in values if v == last or self.name_of(v) == last), None)
        return self.on_teacher(
            key if key in values else by_name or (values[0] if values else None), *rest
        )

    def name_of(self, key: str) -> str | None:
        try:
            return catalogue.teacher(self.store, key).name
        except BadInput:
            return None

    def on_teacher(
        self,
        key: str | None,
        chosen_map: str | None,
        edit: str,
        colour: str,
        weighting: str,
        given: str,
    ) -> Changes:
        """Another teacher: its maps, its draft, its depth."""
        choices = catalogue.teachers(self.store)
        try:
            teacher = catalogue.teacher(self.store, key)
        except BadInput as error:
            return {
                "teacher": gr.Dropdown(choices=choices, value=None),
                "header": view.header(None),
                "message": view.welcome() if not choices else problem(str(error)),
            }
        maps = catalogue.maps(self.store, teacher)
        values = [value for _, value in maps]
        chosen_map = chosen_map if chosen_map in values else (values[0] if values else None)
        return {
            "teacher": gr.Dropdown(choices=choices, value=key),
            "map": gr.Dropdown(choices=maps, value=chosen_map),
            "header": view.header(teacher),
            **self.rules.fitted(teacher),
            **self.picture.fitted(teacher),
            **self.on_map(key, chosen_map, edit, colour, weighting, given),
        }

    def on_map(
        self,
        key: str | None,
        chosen_map: str | None,
        edit: str,
        colour: str,
        weighting: str,
        given: str,
    ) -> Changes:
        """Another map: drawn anew, on the scale that suits it."""
        try:
            seen = self.look(key, chosen_map, weighting, given)
        except BadInput as error:
            return {"message": problem(str(error))}
        old, (edit, colour) = (edit, colour), (default_edit(seen, edit), default_colour(seen))
        out = self.painted(
            seen,
            draft.load(self.store.workspace, seen.teacher),
            [],
            "" if seen.sensitivity else notice(EMPTY),
        )
        spec = map_chart(seen, edit, log=colour == "log", plan=NOTHING).to_dict(validate=False)
        out["heat"] = gr.HTML(
            value=out["heat"],
            spec=spec,
            shown={"edit": edit, "colour": colour},
            measures=measures(seen),
        )
        # what does not change is not sent: it would undo a choice made while this answer was on its
        # way
        edits = seen.edits or ["drop"]
        shown = (
            gr.Dropdown(choices=edits) if edit == old[0] else gr.Dropdown(choices=edits, value=edit)
        )
        return {
            **out,
            "edit": shown,
            **({} if colour == old[1] else {"colour": colour}),
            **self.maps.fitted(catalogue.maps(self.store, seen.teacher), chosen_map),
            "about": view.about_map(seen.sensitivity),
        }

    def on_switch(self, edit: str, colour: str) -> Changes:
        """Another edit of the record, or the other scale: no new drawing."""
        return {
            "heat": gr.HTML(
                shown={"edit": str(edit), "colour": "linear" if colour == "linear" else "log"}
            )
        }

    def on_weighting(
        self,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        edit: str,
        colour: str,
        weighting: str,
        given: str,
    ) -> Changes:
        """Timesteps count otherwise: other bars, the same cells."""
        box = gr.Textbox(visible=weighting == GIVEN)
        try:
            seen = self.look(key, chosen_map, weighting, given)
        except BadInput as error:
            return {"given": box, "message": problem(str(error))}
        out = self.painted(
            seen,
            draft.load(self.store.workspace, seen.teacher),
            view.selected(heat, seen.teacher),
            "",
        )
        return {**out, "heat": gr.HTML(value=out["heat"], measures=measures(seen)), "given": box}

    def painted(self, seen: Look, state: Draft, selected: list[int], message: str) -> Changes:
        """Values of all widgets that depend on the plan."""
        plan = state.plan
        return {
            "heat": {
                "version": state.version,
                "selected": selected,
                "plan": charts.plan_rows(plan, seen.teacher),
            },
            "budget": view.budget(plan, seen.teacher, seen.sensitivity),
            "yaml": view.plan_yaml(plan),
            "table": view.block_table(plan, seen),
            "boxes": gr.CheckboxGroup(choices=view.place_names(seen.teacher), value=selected),
            "chosen": view.chosen(seen, selected),
            "message": message,
            **self.hand.painted(plan, seen.teacher, selected),
        }

    # --- changes ----------------------------------------------------------------------------------

    def apply(
        self, heat: Any, *sight: Any, how: Callable[[Draft, Look, list[int]], Draft]
    ) -> Changes:
        """One change of the plan. Whatever is wrong becomes one line; the plan stays as it was,
        nothing selected is lost.
        """
        try:
            seen = self.look(*sight)
            selected, version = view.selected(heat, seen.teacher), view.version(heat)
        except BadInput as error:
            return {"message": problem(str(error))}
        message = ""
        try:
            state = draft.change(
                self.store.workspace, seen.teacher, version, lambda d: how(d, seen, selected)
            )
        except BadInput as error:
            state, message = draft.load(self.store.workspace, seen.teacher), problem(str(error))
        return self.painted(seen, state, selected, message)

    def marker(self, mark: str) -> Callable[..., Changes]:
        def how(state: Draft, seen: Look, selected: list[int]) -> Draft:
            if not selected:
                raise BadInput(
                    "no block is selected",
                    "a selection",
                    "click or drag on the map, then press " + mark,
                )
            return state.to(
                marks.edit(state.plan, seen.teacher, view.by_stack(seen.teacher, selected), mark)
            )

        def handler(heat: Any, *sight: Any) -> Changes:
            return self.apply(heat, *sight, how=how)

        handler.__name__ = f"mark_{mark}"
        return handler

    def stepper(self, step: Callable[[Draft], Draft] | None) -> Callable[..., Changes]:
        """Undo, redo, or (None) keep all blocks."""

        def how(state: Draft, seen: Look, _: list[int]) -> Draft:
            return step(state) if step else state.to(plans.identity(seen.teacher))

        def handler(heat: Any, *sight: Any) -> Changes:
            return self.apply(heat, *sight, how=how)

        return handler

    def on_select(self, heat: Any, *sight: Any) -> Changes:
        try:
            seen = self.look(*sight)
        except BadInput:
            return {}
        selected = view.selected(heat, seen.teacher)
        plan = draft.load(self.store.workspace, seen.teacher).plan
        return {
            "boxes": selected,
            "chosen": view.chosen(seen, selected),
            **self.hand.painted(plan, seen.teacher, selected),
        }

    def on_boxes(self, boxes: list[int], heat: Any, *sight: Any) -> Changes:
        value = {**(heat if isinstance(heat, dict) else {}), "selected": sorted(boxes or [])}
        return {
            **{k: v for k, v in self.on_select(value, *sight).items() if k != "boxes"},
            "heat": value,
        }

    def on_tick(
        self,
        known: str,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        edit: str,
        colour: str,
        weighting: str,
        given: str,
    ) -> Changes:
        """Show what other windows and finished jobs changed; usually nothing. `known` is what the
        lists held.
        """
        view_of = (edit, colour, weighting, given)
        try:
            choices = catalogue.teachers(self.store)
            # the first teacher has come, or this tick overtook the first paint: the same teacher as
            # there
            if key is None:
                return self.on_load(None, None, *view_of) if choices else {}
            teacher = catalogue.teacher(self.store, key)
            maps, saved = catalogue.maps(self.store, teacher), catalogue.plans(self.store, teacher)
            if chosen_map is None and maps:  # the first map of this teacher has come
                return self.on_teacher(key, None, *view_of)
            out: Changes = {}
            if (now := repr((choices, maps, saved))) != known:
                out = {
                    "known": now,
                    "teacher": gr.Dropdown(choices=choices),
                    "map": gr.Dropdown(choices=maps),
                    **self.maps.listed(maps),
                    **self.picture.listed(saved),
                }
            state = draft.load(self.store.workspace, teacher)
            if view.version(heat) == state.version:
                return out
            seen = self.look(key, chosen_map, weighting, given)
            told = notice("The plan was changed in another window.")
            return {**out, **self.painted(seen, state, view.selected(heat, teacher), told)}
        except BadInput:
            return {}
