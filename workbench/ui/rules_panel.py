"""Propose: every rule with its options and its paper, for a size. Rules that measure are jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .. import plans, rules
from ..charts.view import Look
from ..families import FAMILIES
from ..records import BadInput, Plan, SensitivityMap, Teacher
from ..specs import PlanSpec, facts
from ..workspace import jobs
from . import catalogue, view
from .components import QUIET
from .draft import Draft
from .forms import Changes, Fields, Readable, Row, connect
from .inputs import file_name
from .plan_state import PlanState, PlanView, Selection
from .spec_form import Choice, SpecForm, SpecInput
from .text import notice

BUDGETS = [
    ("blocks to keep", "keep"),
    ("share of the parameters", "params"),
    ("bytes of the weights", "bytes"),
    ("share of the time per step", "latency"),
]
EXAMPLES = {"params": "0.5", "bytes": "6GB@int4", "latency": "0.5"}
FIRST = "uniform"  # the rule that the form opens with


@dataclass(frozen=True)
class RuleForm:
    """The rule, the kind of budget, and its limit as text where it does not count blocks."""

    rule: str = FIRST
    budget: str = "keep"
    limit: str = ""


class RulesPanel:
    def __init__(self, state: PlanState):
        self.state = state
        self.options = SpecForm(
            PlanSpec,
            option_fields(),
            "option",
            custom={
                "timestep_weight": Choice(
                    weightings, default="", info="How scores are averaged over timesteps."
                ),
                "start": Choice(start_rules, default=""),
            },
        )

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.rule = gr.Dropdown(
                [(rule_title(row), name) for name, row in rules.RULES.items()],
                value=FIRST,
                label="Rule",
                elem_id="rule",
                scale=3,
                min_width=180,
            )
            self.build_budget()
            self.propose = gr.Button(
                "Propose", variant="primary", elem_id="propose", scale=0, min_width=110
            )
        self.about = gr.HTML(view.rule_about(FIRST), elem_id="rule-about")
        with gr.Row(elem_classes="wb-bar wb-options", equal_height=False):
            for fact in self.options.facts:
                visible = fact.name in fields_of(FIRST)
                self.options.widgets[fact.name] = self.options.build_field(fact, visible=visible)
        self.state.page_widgets |= self.keeps

    def build_budget(self) -> None:
        self.budget = gr.Dropdown(
            BUDGETS, value="keep", label="Budget", elem_id="budget-kind", scale=2, min_width=150
        )
        stacks = max(len(family.stacks) for family in FAMILIES.values())
        self.keeps = {f"keep{number}": keep_slider(number) for number in range(stacks)}
        self.limit = gr.Textbox(
            "0.5", label="At most", elem_id="budget-limit", visible=False, scale=2, min_width=110
        )

    # --- wiring -----------------------------------------------------------------------------------

    def for_teacher(self, teacher: Teacher) -> Changes:
        """A slider for each stack of this teacher."""
        changes: Changes = {}
        for number, name in enumerate(self.keeps):
            if number >= len(teacher.stacks):
                changes[name] = gr.Slider(visible=False)
                continue
            stack = teacher.stacks[number]
            changes[name] = gr.Slider(
                minimum=1,
                maximum=max(2, stack.depth),
                value=max(1, stack.depth // 2),
                visible=True,
                label=keep_label(teacher, stack.path),
            )
        return changes

    def wire(self) -> None:
        state = self.state
        form = Fields(RuleForm, rule=self.rule, budget=self.budget, limit=self.limit)
        options = {"about": self.about, **self.options.widgets}
        connect([self.rule.input], self.on_rule, [form], options, **QUIET)
        sizes = {"limit": self.limit, **self.keeps}
        connect([self.budget.input], self.on_budget, [state.fields, form], sizes, **QUIET)
        inputs: list[Readable] = [state.fields, form, Row(self.keeps), self.options]
        connect(
            [self.propose.click],
            self.on_propose,
            inputs,
            state.plan_widgets,
            settled=True,
            **QUIET,
        )

    # --- handlers ---------------------------------------------------------------------------------

    def on_rule(self, form: RuleForm) -> Changes:
        """What the rule does, its paper, and its options."""
        names = fields_of(form.rule)
        changes: Changes = {"about": view.rule_about(form.rule)}
        for name, widget in self.options.widgets.items():
            changes[name] = type(widget)(visible=name in names)
        return changes

    def on_budget(self, shown: PlanView, form: RuleForm) -> Changes:
        """A field for the kind of budget."""
        by_blocks = form.budget == "keep"
        stacks = len(view.stacks_of(self.state.store, shown.teacher))
        limit = EXAMPLES.get(form.budget, "")
        changes: Changes = {"limit": gr.Textbox(value=limit, visible=not by_blocks)}
        for number, name in enumerate(self.keeps):
            changes[name] = gr.Slider(visible=by_blocks and number < stacks)
        return changes

    def on_propose(
        self,
        shown: PlanView,
        form: RuleForm,
        keeps: Sequence[Any],
        options: SpecInput[PlanSpec],
    ) -> Changes:
        """Make the rule's plan the current one, or submit a job. `keeps`: blocks of each stack."""
        if form.rule not in rules.RULES:
            raise BadInput(f"rule {form.rule!r}", "one of " + ", ".join(rules.RULES), "choose one")
        options = options.only(fields_of(form.rule))
        look = self.state.look(shown)
        size = size_of(look.teacher, form, keeps)
        spec = options.parse(self.state.access, teacher=look.teacher.name, rule=form.rule, **size)
        if rules.RULES[form.rule].measures:
            return self.submit(spec, shown, look)

        def change(current: Draft, look: Look, _: Selection) -> Draft:
            return current.to(propose(spec, look.teacher, self.map_for(form.rule, look)))

        return self.state.apply(shown, change)

    def map_for(self, rule: str, look: Look) -> SensitivityMap | None:
        """The map that a rule reads: the one on screen where its metric fits, else another one of
        this teacher.
        """
        row = rules.RULES[rule]
        if not row.needs_map:
            return None
        if look.sensitivity is not None and row.metric in (None, look.sensitivity.metric):
            return look.sensitivity
        store = self.state.store
        for _, path in catalogue.maps(store, look.teacher):
            other = catalogue.sensitivity(store, look.teacher, path)
            if other is not None and other.metric == row.metric:
                return other
        if look.sensitivity is None:
            raise BadInput(
                f"the rule {row.title} without a sensitivity map",
                f"one of {look.teacher.name}",
                "choose one, or profile first",
            )
        return look.sensitivity  # the rule says what is wrong with it

    def submit(self, spec: PlanSpec, shown: PlanView, look: Look) -> Changes:
        """A rule that measures: a job, whose plan enters the list of saved plans."""
        self.state.access.check_change()
        store = self.state.store
        name = file_name(f"{spec.rule}-{look.teacher.name.rpartition('/')[2]}")
        update: dict[str, Any] = {"out": str(store.out("plan", name, ".yaml"))}
        if look.sensitivity is not None:
            update["sensitivity"] = shown.map
        spec = spec.model_copy(update=update)
        title = f"plan by {rules.RULES[str(spec.rule)].title}"
        job = jobs.submit(store, spec.verb, spec, title=title)
        return {
            "message": notice(
                f"{job.title}: job {job.id} is {job.state}. Its plan will be in “Diagram & "
                "changes”, under saved plans."
            )
        }


# --- from the form to a proposal ------------------------------------------------------------------


def propose(spec: PlanSpec, teacher: Teacher, sensitivity: SensitivityMap | None) -> Plan:
    """The plan of a rule that only reads the map."""
    budget = rules.Budget.parse(spec.budget) if spec.budget is not None else None
    keep = spec.keep if isinstance(spec.keep, dict) else None
    settings = rules.settings_of(spec, teacher)
    return rules.propose(
        str(spec.rule), teacher, keep, sensitivity=sensitivity, budget=budget, **settings
    )


def size_of(teacher: Teacher, form: RuleForm, keeps: Sequence[Any]) -> dict[str, Any]:
    """The field of PlanSpec that says how large the student is: `keep` or `budget`."""
    if form.budget == "keep":
        return {"keep": depths(teacher, keeps)}
    if form.budget not in EXAMPLES:
        kinds = ", ".join(name for _, name in BUDGETS)
        raise BadInput(f"budget {form.budget!r}", f"one of {kinds}", "choose one")
    budget = f"{form.budget}={form.limit}"
    rules.Budget.parse(budget)  # refused here, not after a job has started
    return {"budget": budget}


def depths(teacher: Teacher, keeps: Sequence[Any]) -> dict[str, int]:
    """Student blocks of each stack, from the sliders."""
    keep = {}
    for stack, value in zip(teacher.stacks, keeps, strict=False):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 1 <= value <= stack.depth:
            raise BadInput(
                f"keep {value!r} blocks of {stack.path}", f"1 to {stack.depth}", "move the slider"
            )
        keep[stack.path] = int(value)
    return keep


# --- what the form offers -------------------------------------------------------------------------


def option_fields() -> list[str]:
    """The fields of PlanSpec that any rule has as options, in their order there."""
    used: set[str] = set()
    for row in rules.RULES.values():
        used.update(row.options)
    return [fact.name for fact in facts(PlanSpec) if fact.name in used]


def fields_of(rule: str) -> list[str]:
    """The fields of PlanSpec that a rule has as options."""
    if rule not in rules.RULES:
        return []
    return list(rules.RULES[rule].options)


def rule_title(row: rules.Rule) -> str:
    """Its name, with the arXiv id of its paper."""
    if row.paper and "://" not in row.paper:
        return f"{row.title} (arXiv {row.paper})"
    return row.title


def weightings() -> list[tuple[str, str]]:
    return [("the rule's", ""), *((name, name) for name in plans.WEIGHTINGS)]


def start_rules() -> list[tuple[str, str]]:
    """Rules whose plan a search can improve."""
    names = [name for name, row in rules.RULES.items() if not row.measures]
    return [("uniform", ""), *((name, name) for name in names if name != "uniform")]


def keep_label(teacher: Teacher, path: str) -> str:
    if len(teacher.stacks) == 1:
        return "Blocks to keep"
    return f"Keep of {path}"


def keep_slider(number: int) -> gr.Slider:
    """How many blocks of a stack to keep; its range follows the teacher."""
    return gr.Slider(
        1,
        24,
        value=12,
        step=1,
        label="Blocks to keep",
        elem_id=f"keep-n-{number}",
        visible=number == 0,
        scale=3,
        min_width=170,
    )
