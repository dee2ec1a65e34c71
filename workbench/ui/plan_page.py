"""Page "Sensitivity & plan": the map, the marks, the budget, proposals. The plan itself lives on disk (draft.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from .. import charts, marks, plans, rules
from ..records import BadInput, SensitivityMap, Teacher
from ..store import Store
from . import catalogue, draft, view
from .components import plan_map
from .draft import Draft
from .text import notice, problem

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
EMPTY = ("No sensitivity map of this teacher yet. Choose “Profile” below to measure one; meanwhile you can plan by hand, "
         "or propose even spans.")


class PlanPage:
    """Widgets of the page and what they do. `launch_panel` and the header read `self.teacher` and friends."""

    def __init__(self, store: Store):
        self.store = store

    # --- layout --------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        choices = catalogue.teachers(self.store)
        with gr.Row(elem_classes="wb-bar"):
            self.teacher = gr.Dropdown(choices, label="Teacher", value=None, elem_id="teacher", scale=3, min_width=180)
            self.map = gr.Dropdown([], label="Sensitivity map", value=None, elem_id="map", scale=4, min_width=180)
            self.edit = gr.Dropdown(["drop", "merge"], value="drop", label="Edit shown", elem_id="edit", scale=1, min_width=110)
            self.weighting = gr.Dropdown(list(plans.WEIGHTINGS), value="normalised", label="Timesteps weigh", elem_id="weighting", scale=2,
                                         min_width=130)
            self.colour = gr.Radio(["log", "linear"], value="log", label="Colour", elem_id="colour", scale=1, min_width=170)
        self.budget = gr.HTML(elem_id="budget")
        self.message = gr.HTML(elem_id="message")
        self.heat = plan_map(elem_id="heat", container=False)
        self.tools()
        self.proposals()
        with gr.Accordion("Blocks as a table (keyboard and screen readers)", open=False, elem_id="table-view"):
            self.boxes = gr.CheckboxGroup([], label="Select blocks", elem_id="boxes")
            self.table = gr.HTML(elem_id="block-table")
        self.known = gr.State("")
        self.timer = gr.Timer(2.0)

    def tools(self) -> None:
        with gr.Row(elem_classes="wb-bar wb-tools"):
            self.keep = gr.Button("Keep (K)", elem_id="mark-keep", size="sm", min_width=80, elem_classes="keep")
            self.drop = gr.Button("Drop (D)", elem_id="mark-drop", size="sm", min_width=80, elem_classes="drop")
            self.merge = gr.Button("Merge (M)", elem_id="mark-merge", size="sm", min_width=80, elem_classes="merge")
            self.undo = gr.Button("Undo (U)", elem_id="undo", size="sm", min_width=80)
            self.redo = gr.Button("Redo", elem_id="redo", size="sm", min_width=80)
            self.reset = gr.Button("Keep all", elem_id="reset", size="sm", min_width=80)
            self.chosen = gr.HTML(elem_id="chosen")

    def proposals(self) -> None:
        names = [(f"{row.title}{' (arXiv ' + row.paper + ')' if row.paper else ''}", name) for name, row in rules.RULES.items()]
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.rule = gr.Dropdown(names, value="uniform", label="Propose with rule", elem_id="rule", scale=3, min_width=180)
            self.keep_n = gr.Slider(1, 24, value=12, step=1, label="Blocks to keep", elem_id="keep-n", scale=3, min_width=180)
            self.init = gr.Dropdown([("as the rule says", ""), "first", "last", "middle", "mean"], value="", label="Start from",
                                    elem_id="init", scale=2, min_width=120)
            self.gain = gr.Dropdown([("1", "1"), ("span length", "length"), ("2", "2")], value="1", label="Gain", elem_id="gain", scale=1,
                                    min_width=110, allow_custom_value=True)
            self.propose = gr.Button("Propose", variant="primary", elem_id="propose", scale=1, min_width=100)
        self.about = gr.HTML(view.rule_about("uniform"), elem_id="rule-about")

    # --- wiring --------------------------------------------------------------------------------------------------------

    def wire(self, demo: gr.Blocks, header: gr.HTML, yaml: gr.Code) -> None:
        """Connect events. `header` and `yaml` stand elsewhere on the page."""
        shown = [self.heat, self.budget, yaml, self.table, self.boxes, self.chosen, self.message]
        frame = [self.teacher, self.map, self.edit, self.keep_n, header]
        choices = [self.teacher, self.map, self.edit, self.colour, self.weighting]
        demo.load(self.on_load, choices, [*frame, *shown], **QUIET)
        # Gradio drops an event while an earlier one of its kind is under way, unless told to run the last one too.
        last: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
        self.teacher.input(self.on_teacher, choices, [*frame, *shown], **last)
        for control in (self.map, self.edit, self.colour, self.weighting):
            control.input(self.on_view, choices, shown, **last)
        at = [self.heat, self.teacher, self.map, self.weighting]
        for button, mark in ((self.keep, "keep"), (self.drop, "drop"), (self.merge, "merge")):
            button.click(self.marker(mark), at, shown, **QUIET)
        for button, how in ((self.undo, Draft.back), (self.redo, Draft.forth)):
            button.click(self.stepper(how), at, shown, **QUIET)
        self.reset.click(self.stepper(None), at, shown, **QUIET)
        self.propose.click(self.on_propose, [*at, self.rule, self.keep_n, self.init, self.gain], shown, **QUIET)
        self.rule.input(view.rule_about, self.rule, self.about, **QUIET)
        self.heat.select(self.on_select, [self.heat, self.teacher, self.map, self.weighting], [self.boxes, self.chosen], **last)
        self.boxes.input(self.on_boxes, [self.boxes, *at], [self.heat, self.chosen], **last)
        self.timer.tick(self.on_tick, [self.known, self.heat, *choices], [self.known, *frame, *shown], **QUIET)

    # --- handlers ------------------------------------------------------------------------------------------------------

    def on_load(self, key: str | None, *rest: Any) -> list[Any]:
        """First paint, and after each reload: everything comes from disk."""
        choices = catalogue.teachers(self.store)
        values = [value for _, value in choices]
        last = draft.latest(self.store.workspace)
        by_name = next((v for v in values if v == last or self.name_of(v) == last), None)
        return self.on_teacher(key if key in values else by_name or (values[0] if values else None), *rest)

    def name_of(self, key: str) -> str | None:
        try:
            return catalogue.teacher(self.store, key).name
        except BadInput:
            return None

    def on_teacher(self, key: str | None, chosen_map: str | None, edit: str, colour: str, weighting: str) -> list[Any]:
        """Another teacher: its maps, its draft, its depth."""
        choices = catalogue.teachers(self.store)
        try:
            teacher = catalogue.teacher(self.store, key)
        except BadInput as error:
            message = view.welcome() if not choices else problem(str(error))
            return [gr.Dropdown(choices=choices, value=None), gr.skip(), gr.skip(), gr.skip(), view.header(None),
                    *[gr.skip()] * 6, message]
        maps = catalogue.maps(self.store, teacher)
        values = [value for _, value in maps]
        chosen_map = chosen_map if chosen_map in values else (values[0] if values else None)
        sensitivity = catalogue.sensitivity(self.store, teacher, chosen_map)
        edits = sensitivity.edits if sensitivity else ["drop"]
        edit = edit if edit in edits else edits[0]
        depth = sum(stack.depth for stack in teacher.stacks)
        return [gr.Dropdown(choices=choices, value=key), gr.Dropdown(choices=maps, value=chosen_map),
                gr.Dropdown(choices=edits, value=edit),
                gr.Slider(minimum=len(teacher.stacks), maximum=depth, value=max(len(teacher.stacks), depth // 2)), view.header(teacher),
                *self.on_view(key, chosen_map, edit, colour, weighting)]

    def on_view(self, key: str | None, chosen_map: str | None, edit: str, colour: str, weighting: str) -> list[Any]:
        """Draw the map again (other data or scale) and everything about the plan."""
        try:
            teacher = catalogue.teacher(self.store, key)
            sensitivity = catalogue.sensitivity(self.store, teacher, chosen_map)
            if weighting not in plans.WEIGHTINGS:
                raise BadInput(f"weighting {weighting!r}", "one of " + ", ".join(plans.WEIGHTINGS), "choose one")
            spec = view.map_spec(teacher, sensitivity, edit, colour == "log", weighting)
        except BadInput as error:
            return [*[gr.skip()] * 6, problem(str(error))]
        first, *rest = self.shown(teacher, sensitivity, weighting, draft.load(self.store.workspace, teacher), [], "")
        rest[-1] = "" if sensitivity else notice(EMPTY)
        return [gr.HTML(value=first, spec=spec), *rest]

    def shown(self, teacher: Teacher, sensitivity: SensitivityMap | None, weighting: str, state: Draft, selected: list[int],
              message: str) -> list[Any]:
        """Values of all widgets that depend on the plan, in the order of `shown` in `wire`."""
        value = {"version": state.version, "selected": selected, "plan": charts.plan_rows(state.plan, teacher)}
        return [value, view.budget(state.plan, teacher, sensitivity), view.plan_yaml(state.plan),
                view.block_table(state.plan, teacher, sensitivity, weighting),
                gr.CheckboxGroup(choices=view.place_names(teacher), value=selected),
                view.chosen(teacher, sensitivity, weighting, selected), message]

    def apply(self, heat: Any, key: str | None, chosen_map: str | None, weighting: str,
              how: Callable[[Draft, Teacher, SensitivityMap | None, list[int]], Draft]) -> list[Any]:
        """One change of the plan. Whatever is wrong becomes one line; the plan stays as it was, nothing selected is lost."""
        try:
            teacher = catalogue.teacher(self.store, key)
            sensitivity = catalogue.sensitivity(self.store, teacher, chosen_map)
            selected, version = view.selected(heat, teacher), view.version(heat)
        except BadInput as error:
            return [*[gr.skip()] * 6, problem(str(error))]
        message = ""
        try:
            state = draft.change(self.store.workspace, teacher, version, lambda d: how(d, teacher, sensitivity, selected))
        except BadInput as error:
            state, message = draft.load(self.store.workspace, teacher), problem(str(error))
        return self.shown(teacher, sensitivity, weighting, state, selected, message)

    def marker(self, mark: str) -> Callable[..., list[Any]]:
        def how(state: Draft, teacher: Teacher, _: SensitivityMap | None, selected: list[int]) -> Draft:
            if not selected:
                raise BadInput("no block is selected", "a selection", "click or drag on the map, then press " + mark)
            return state.to(marks.edit(state.plan, teacher, view.by_stack(teacher, selected), mark))

        def handler(heat: Any, key: str | None, chosen_map: str | None, weighting: str) -> list[Any]:
            return self.apply(heat, key, chosen_map, weighting, how)

        handler.__name__ = f"mark_{mark}"
        return handler

    def stepper(self, step: Callable[[Draft], Draft] | None) -> Callable[..., list[Any]]:
        """Undo, redo, or (None) keep all blocks."""

        def how(state: Draft, teacher: Teacher, _: SensitivityMap | None, __: list[int]) -> Draft:
            return step(state) if step else state.to(plans.identity(teacher))

        def handler(heat: Any, key: str | None, chosen_map: str | None, weighting: str) -> list[Any]:
            return self.apply(heat, key, chosen_map, weighting, how)

        return handler

    def on_propose(self, heat: Any, key: str | None, chosen_map: str | None, weighting: str, rule: str, keep: float, init: str,
                   gain: str) -> list[Any]:
        def how(state: Draft, teacher: Teacher, sensitivity: SensitivityMap | None, _: list[int]) -> Draft:
            if rules.RULES[rule].needs_map and sensitivity is None:
                raise BadInput(f"the rule {rules.RULES[rule].title} needs a sensitivity map", f"one of {teacher.name}",
                               "choose one, or profile first")
            wanted = view.split_keep(teacher, int(keep))
            plan = rules.propose(rule, teacher, wanted, sensitivity, weighting=weighting, init=view.checked_init(init),
                                 gain=view.checked_gain(gain))
            return state.to(plan)

        return self.apply(heat, key, chosen_map, weighting, how)

    def on_select(self, heat: Any, key: str | None, chosen_map: str | None, weighting: str) -> list[Any]:
        try:
            teacher = catalogue.teacher(self.store, key)
            selected = view.selected(heat, teacher)
        except BadInput:
            return [gr.skip(), gr.skip()]
        return [selected, view.chosen(teacher, catalogue.sensitivity(self.store, teacher, chosen_map), weighting, selected)]

    def on_boxes(self, boxes: list[int], heat: Any, key: str | None, chosen_map: str | None, weighting: str) -> list[Any]:
        value = {**(heat if isinstance(heat, dict) else {}), "selected": sorted(boxes or [])}
        return [value, self.on_select(value, key, chosen_map, weighting)[1]]

    def on_tick(self, known: str, heat: Any, key: str | None, chosen_map: str | None, edit: str, colour: str, weighting: str) -> list[Any]:
        """Show what other windows and finished jobs changed; usually nothing. `known` is what the lists held."""
        view_of = (edit, colour, weighting)
        still, rest = [gr.skip()] * 13, [gr.skip()] * 7
        try:
            choices = catalogue.teachers(self.store)
            if key is None:  # the first teacher has come
                return ["", *self.on_teacher(choices[0][1], None, *view_of)] if choices else still
            teacher = catalogue.teacher(self.store, key)
            maps = catalogue.maps(self.store, teacher)
            if chosen_map is None and maps:  # the first map of this teacher has come
                return ["", *self.on_teacher(key, None, *view_of)]
            now = repr((choices, maps))
            fresh = [gr.skip()] * 2 if now == known else [gr.Dropdown(choices=choices), gr.Dropdown(choices=maps)]
            lists = [now, *fresh, *[gr.skip()] * 3]
            state = draft.load(self.store.workspace, teacher)
            if view.version(heat) == state.version:
                return [*lists, *rest]
            sensitivity = catalogue.sensitivity(self.store, teacher, chosen_map)
            told = notice("The plan was changed in another window.")
            return [*lists, *self.shown(teacher, sensitivity, weighting, state, view.selected(heat, teacher), told)]
        except BadInput:
            return still
