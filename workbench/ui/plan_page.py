"""Page "Sensitivity & plan": the map, the marks, the budget, and the panels beneath."""

from __future__ import annotations

from dataclasses import dataclass, replace

import gradio as gr
from gradio.blocks import Block

from .. import charts
from ..charts.view import GIVEN, Look, default_colour, default_edit, map_chart, measures
from ..records import BadInput, Plan, Teacher
from . import catalogue, draft, steps, view
from .address import AT_LOAD, PANELS, Address, Lookup, Place, marked
from .block_panel import BlockPanel
from .components import LAST, QUIET
from .edit_panel import HandPanel
from .forms import Changes, Fields, Readable, connect
from .maps_panel import MapsPanel
from .picture_panel import PicturePanel
from .plan_state import PlanState, PlanView
from .preview_panel import PreviewPanel
from .pulse import Pulse
from .rules_panel import RulesPanel
from .text import notice, problem

NO_MAP = (
    "No sensitivity map of this teacher yet. Measure one with “Profile” below; until then you can "
    "plan by hand or propose even spans."
)
SETTLING = 3.0  # seconds in which a change reaches the window that made it
NO_PLAN: dict[str, charts.Rows] = {
    "marks": [],
    "ribbons": [],
    "student": [],
}  # drawn by the browser


@dataclass(frozen=True)
class ListsForm:
    """What the lists of teachers, maps and plans held when they were last filled."""

    listed: str = ""


PAINTED = "painted"  # as the text of the lists: the page has been painted, and no list sent yet


class PlanPage:
    """The page's own widgets and handlers; the panels share its state."""

    def __init__(self, state: PlanState):
        self.state = state
        self.store = state.store
        self.hand = HandPanel(state)
        self.rules = RulesPanel(state)
        self.block = BlockPanel(state)
        self.maps = MapsPanel(state)
        self.picture = PicturePanel(state)
        self.preview = PreviewPanel(state)

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        self.state.build()
        self.build_tools()
        self.hand.build()
        with gr.Tabs(elem_id="work"):
            with gr.Tab(PANELS["propose"], id="propose"):
                self.rules.build()
            with gr.Tab(PANELS["block"], id="block") as self.block.tab:
                self.block.build()
            with gr.Tab(PANELS["maps"], id="maps") as self.maps.tab:
                self.maps.build()
            with gr.Tab(PANELS["picture"], id="picture") as self.picture.tab:
                self.picture.build()
            with gr.Tab(PANELS["preview"], id="preview"):
                self.preview.build()
            with gr.Tab(PANELS["table"], id="table"):
                self.build_table()
        self.listed = gr.State("")
        self.state.page_widgets["listed"] = self.listed
        self.state.painters.append(self.paint)

    def build_tools(self) -> None:
        with gr.Row(elem_classes="wb-bar wb-tools"):
            self.keep = tool("Keep (K)", "mark-keep", "keep")
            self.drop = tool("Drop (D)", "mark-drop", "drop")
            self.merge = tool("Merge (M)", "mark-merge", "merge")
            self.undo = tool("Undo (U)", "undo")
            self.redo = tool("Redo", "redo")
            self.reset = tool("Keep all", "reset")
            self.hand.build_free_cut()
            self.state.plan_widgets["chosen"] = gr.HTML(elem_id="chosen")

    def build_table(self) -> None:
        gr.HTML(
            "<div class='wb-about'>The map and the plan as text, for keyboards and screen readers."
            "</div>"
        )
        self.state.boxes = gr.CheckboxGroup([], label="Select blocks", elem_id="boxes")
        self.state.plan_widgets |= {
            "boxes": self.state.boxes,
            "table": gr.HTML(elem_id="block-table"),
        }

    def build_yaml(self) -> None:
        self.state.plan_widgets["yaml"] = gr.Code(
            language="yaml", elem_id="yaml", interactive=False, max_lines=18, show_label=False
        )

    # --- wiring -----------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, address: Address, pulse: Pulse) -> None:
        """Connect the page's events and its panels'."""
        state = self.state
        fields = [state.fields]
        state.page_widgets["address"] = address.widget
        everything = state.all_widgets
        address.arrive(demo, self.on_address, fields, everything)
        for name, widget in (("teacher", state.teacher), ("map", state.map)):
            address.step(name, widget.input, widget)
            address.keep(name, widget.change, widget)
        address.step("plan", self.picture.saved.input, self.picture.saved)
        self.wire_views()
        for event in (state.weighting.input, state.weights.submit, state.weights.blur):
            connect([event], self.on_weighting, fields, everything, **LAST)
        self.wire_changes()
        lists = Fields(ListsForm, listed=self.listed)
        looks: list[Readable] = [address.input, *fields, lists]
        connect([pulse.event("plan")], self.on_tick, looks, everything, js=AT_LOAD, **LAST)
        for panel in (self.rules, self.preview):
            panel.wire()
        for drawn in (self.block, self.maps, self.picture):
            drawn.wire(address)

    def wire_views(self) -> None:
        """Another teacher or map, another edit or colour scale."""
        state = self.state
        drawing = self.widgets("heat", "message")
        for widget, handler in ((state.teacher, self.on_teacher), (state.map, self.on_map)):
            answers = connect([widget.input], handler, [state.fields], state.all_widgets, **LAST)
            # the drawing shows what is chosen now, also where it was chosen in between
            connect([answers[0].then], self.on_switch, [state.fields], drawing, **QUIET)
        for switch in (state.edit, state.colour):
            connect([switch.input], self.on_switch, [state.fields], drawing, **LAST)

    def wire_changes(self) -> None:
        """Selecting blocks and marking them. Marks leave the browser as one stream (edits.js), to
        which the buttons and keys add; what follows from them is painted when it is confirmed.
        """
        state = self.state
        buttons = {
            self.keep: "keep",
            self.drop: "drop",
            self.merge: "merge",
            self.undo: "undo",
            self.redo: "redo",
            self.reset: "reset",
            self.hand.free: "unused",
        }
        for button, verb in buttons.items():
            button.click(None, js=f"() => window.workbench?.map?.edit('{verb}')")
        pick = "places => window.workbench?.map?.select(places, true, 'table')"
        state.boxes.input(None, [state.boxes], js=pick)
        painted = {name: state.plan_widgets[name] for name in state.plan_widgets if name != "heat"}
        connect([state.heat.edited], self.on_edited, [state.fields], painted, **LAST)
        selected = self.widgets("boxes", "chosen", "message", "hand")
        connect([state.heat.select], self.on_select, [state.fields], selected, **LAST)

    def widgets(self, *names: str) -> dict[str, Block]:
        return {name: self.state.all_widgets[name] for name in names}

    # --- what is shown ----------------------------------------------------------------------------

    def on_load(self, shown: PlanView) -> Changes:
        """First paint, and after each reload: everything comes from disk."""
        choices = catalogue.teachers(self.store)
        teacher = shown.teacher
        if teacher not in [value for _, value in choices]:
            teacher = catalogue.current(choices, self.last_edited(choices))
        return self.on_teacher(replace(shown, teacher=teacher))

    def on_address(self, place: Place, shown: PlanView) -> Changes:
        """What an address names: at the first paint, after Back and Forward. A name that is not
        listed becomes one line; the page shows what it would without it.
        """
        lookup = Lookup()
        teachers = catalogue.teachers(self.store)
        key = lookup.value(teachers, place.teacher, "teacher") or shown.teacher
        if key not in [value for _, value in teachers]:
            key = catalogue.current(teachers, self.last_edited(teachers))
        if key is None:
            return {**self.on_load(shown), "listed": PAINTED}
        teacher = catalogue.teacher(self.store, key)
        maps, plans = catalogue.maps(self.store, teacher), catalogue.plans(self.store, teacher)
        chosen_map = lookup.value(maps, place.map, "map")
        if key == shown.teacher:
            chosen_map = chosen_map or shown.map
        window = replace(shown, teacher=key, map=chosen_map)
        if place.tab in ("", "plan"):
            places = lookup.places(place.select, view.depth_of(teacher))
            heat = {"teacher": key, "selected": places, "select": places}
            window = replace(window, heat=heat)
        changes = self.at_address(shown, window)
        saved = lookup.value(plans, place.plan, "plan")
        if saved:
            changes["saved"] = gr.Dropdown(choices=plans, value=saved)
        if lookup.refusals:
            changes["message"] = problem(lookup.refusals[0])
        names = marked(teachers, maps, plans)
        seen = gr.HTML(seen=place.number, names=names)
        return {**changes, "address": seen, "listed": PAINTED}

    def at_address(self, shown: PlanView, window: PlanView) -> Changes:
        """From what is shown to what an address names: the map is drawn again only for another."""
        if view.teacher(shown.heat) != window.teacher or shown.map != window.map:
            return self.on_teacher(window)
        if shown.heat is window.heat:  # the address is about another page
            return {}
        look = self.state.look(window)
        places = view.selected_places(window.heat, look.teacher)
        return self.state.painted(window, look, self.state.draft(look), places)

    def last_edited(self, choices: catalogue.Choices) -> str | None:
        """The teacher whose plan was changed last."""
        last = draft.latest(self.store.workspace)
        for _, value in choices:
            if last in (value, self.name_of(value)):
                return value
        return None

    def name_of(self, teacher: str) -> str | None:
        try:
            return catalogue.teacher(self.store, teacher).name
        except BadInput:
            return None

    def on_teacher(self, shown: PlanView) -> Changes:
        """Another teacher: its maps, its draft, its depth."""
        choices = catalogue.teachers(self.store)
        if not choices:
            return {
                "teacher": gr.Dropdown(choices=[], value=None),
                "header": view.header(None),
                "message": view.welcome(),
            }
        teacher = catalogue.teacher(self.store, shown.teacher)
        maps = catalogue.maps(self.store, teacher)
        chosen_map = catalogue.current(maps, shown.map)
        return {
            "teacher": gr.Dropdown(choices=choices, value=shown.teacher),
            "map": gr.Dropdown(choices=maps, value=chosen_map),
            "header": view.header(teacher),
            **self.rules.for_teacher(teacher),
            **self.picture.for_teacher(teacher),
            **self.on_map(replace(shown, map=chosen_map)),
        }

    def on_map(self, shown: PlanView) -> Changes:
        """Another map: drawn anew, on the scale that suits it."""
        look = self.state.look(shown)
        edit = default_edit(look, shown.edit)
        colour = default_colour(look)
        message = ""
        if look.sensitivity is None:
            message = notice(NO_MAP)
        places: list[int] = []
        if view.teacher(shown.heat) == shown.teacher:  # another map of the same blocks
            places = view.selected_places(shown.heat, look.teacher)
        changes = self.state.painted(shown, look, self.state.draft(look), places, message)
        chart = map_chart(look, edit, log=colour == "log", plan=NO_PLAN)
        changes["heat"] = gr.HTML(
            value=changes["heat"],
            spec=chart.to_dict(validate=False),
            shown={"edit": edit, "colour": colour},
            measures=measures(look),
        )
        # what does not change is not sent: it would undo a choice made while this was on its way
        edits = look.edits or ["drop"]
        changes["edit"] = gr.Dropdown(choices=edits)
        if edit != shown.edit:
            changes["edit"] = gr.Dropdown(choices=edits, value=edit)
        if colour != shown.colour:
            changes["colour"] = colour
        changes["about"] = view.about_map(look.sensitivity)
        return changes | self.maps.for_map(catalogue.maps(self.store, look.teacher), shown.map)

    def on_switch(self, shown: PlanView) -> Changes:
        """Another edit of the same map, or the other colour scale: no new drawing."""
        colour = "log"
        if shown.colour == "linear":
            colour = "linear"
        return {"heat": gr.HTML(shown={"edit": str(shown.edit), "colour": colour})}

    def on_weighting(self, shown: PlanView) -> Changes:
        """Timesteps count differently: other bars, the same cells."""
        box = gr.Textbox(visible=shown.weighting == GIVEN)
        try:
            look = self.state.look(shown)
        except BadInput as error:
            return {"weights": box, "message": problem(str(error))}
        places = view.selected_places(shown.heat, look.teacher)
        changes = self.state.painted(shown, look, self.state.draft(look), places)
        changes["heat"] = gr.HTML(value=changes["heat"], measures=measures(look))
        return {**changes, "weights": box}

    def paint(self, plan: Plan, look: Look, places: list[int]) -> Changes:
        """The page's own widgets that change with the plan."""
        return {
            "yaml": view.plan_yaml(plan),
            "table": view.block_table(plan, look),
            "boxes": gr.CheckboxGroup(choices=view.place_names(look.teacher), value=places),
            "chosen": view.chosen(look, places),
        }

    # --- changes ----------------------------------------------------------------------------------

    def on_edited(self, shown: PlanView) -> Changes:
        """Edits of this window are on disk: everything but the map, which has its answer."""
        look = self.state.look(shown)
        places = view.selected_places(shown.heat, look.teacher)
        changes = self.state.painted(shown, look, self.state.draft(look), places)
        del changes["heat"]
        return without_boxes(shown, changes)

    def on_select(self, shown: PlanView) -> Changes:
        look = self.state.look(shown)
        places = view.selected_places(shown.heat, look.teacher)
        return without_boxes(shown, {"boxes": places, **self.about_selection(look, places)})

    def about_selection(self, look: Look, places: list[int]) -> Changes:
        plan = self.state.draft(look).plan
        common = self.hand.paint(plan, look, places)
        return {"chosen": view.chosen(look, places), "hand": common["hand"]}

    def on_tick(self, place: Place, shown: PlanView, lists: ListsForm) -> Changes:
        """Show what other windows and finished jobs changed; usually nothing."""
        try:
            return self.news(place, shown, lists)
        except BadInput:  # a file that is being written, or gone: the next tick sees it
            return {}

    def news(self, place: Place, shown: PlanView, lists: ListsForm) -> Changes:
        if not lists.listed:  # this tick overtook the first paint, which knows the address
            return {}
        teachers = catalogue.teachers(self.store)
        if shown.teacher is None:
            # The first teacher is here; or the first paint is on its way to the browser, and what
            # comes after it must not differ.
            if not teachers:
                return {}
            return self.on_address(place, replace(shown, map=None))
        teacher = catalogue.teacher(self.store, shown.teacher)
        maps = catalogue.maps(self.store, teacher)
        if shown.map is None and maps:  # the first map of this teacher is here
            return self.on_teacher(shown)
        state = draft.load(self.store.workspace, teacher)
        changes = self.new_lists(lists, teachers, maps, teacher)
        if changes:
            changes["steps"] = self.state.steps(shown, teacher, state.plan)
        if view.version(shown.heat) == state.version:
            return changes
        is_own = bool(state.window) and state.window == view.window(shown.heat)
        if is_own and draft.seconds_since_change(self.store.workspace, teacher) < SETTLING:
            return changes  # its answer is on its way
        places = view.selected_places(shown.heat, teacher)
        changes |= self.state.painted(shown, self.state.look(shown), state, places)
        if not is_own:
            changes["heat"]["note"] = "The plan was changed in another window."
        return without_boxes(shown, changes)

    def new_lists(
        self,
        lists: ListsForm,
        teachers: catalogue.Choices,
        maps: catalogue.Choices,
        teacher: Teacher,
    ) -> Changes:
        """The lists of teachers, maps and saved plans, where they or the results of later steps
        have changed.
        """
        saved = catalogue.plans(self.store, teacher)
        listed = repr((teachers, maps, saved, steps.results(self.store)))
        if listed == lists.listed:
            return {}
        return {
            "listed": listed,
            "address": gr.HTML(names=marked(teachers, maps, saved)),
            "teacher": gr.Dropdown(choices=teachers),
            "map": gr.Dropdown(choices=maps),
            "second": gr.Dropdown(choices=maps),
            "saved": gr.Dropdown(choices=saved),
        }


def without_boxes(shown: PlanView, changes: Changes) -> Changes:
    """Without the table's own boxes where blocks were selected there last: they are right already,
    and one that was ticked meanwhile would be taken back.
    """
    if isinstance(shown.heat, dict) and shown.heat.get("source") == "table":
        changes.pop("boxes", None)
    return changes


def tool(label: str, name: str, style: str = "") -> gr.Button:
    """A small button of the row under the map."""
    return gr.Button(label, elem_id=name, size="sm", min_width=80, elem_classes=style)
