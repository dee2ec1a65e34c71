"""Propose: every rule of `rules.RULES` with its options explained and its paper linked, to a
budget. Measured rules run as jobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from .. import rules
from ..families import FAMILIES
from ..records import BadInput, SensitivityMap, Teacher
from ..workspace import jobs
from . import catalogue, draft, view
from .components import QUIET
from .inputs import at_least_zero, positive
from .text import notice, problem

if TYPE_CHECKING:
    from ..charts.view import Look
    from .plan_page import Changes, PlanPage

STACKS = max(len(family.stacks) for family in FAMILIES.values())
AS_RULE = ("as the rule says", "")
BUDGETS = [
    ("blocks to keep", "keep"),
    ("share of the parameters", "params"),
    ("bytes of the weights", "bytes"),
    ("share of the time per step", "latency"),
]
EXAMPLES = {"params": "0.5", "bytes": "6GB@int4", "latency": "0.5"}


class RulesPanel:
    def __init__(self, page: PlanPage):
        self.page = page
        self.options: dict[str, Any] = {}

    # --- layout -----------------------------------------------------------------------------------

    def build(self) -> None:
        names = [
            (
                f"{row.title}{' (arXiv ' + row.paper + ')' if row.paper and '://' not in row.paper else ''}",
                name,
            )
            for name, row in rules.RULES.items()
        ]
        with gr.Row(elem_classes="wb-bar", equal_height=False):
            self.rule = gr.Dropdown(
                names, value="uniform", label="Rule", elem_id="rule", scale=3, min_width=180
            )
            self.kind = gr.Dropdown(
                BUDGETS, value="keep", label="Budget", elem_id="budget-kind", scale=2, min_width=150
            )
            self.keeps = [
                gr.Slider(
                    1,
                    24,
                    value=12,
                    step=1,
                    label="Blocks to keep",
                    elem_id="keep-n" if n == 0 else f"keep-n-{n}",
                    visible=n == 0,
                    scale=3,
                    min_width=170,
                )
                for n in range(STACKS)
            ]
            self.limit = gr.Textbox(
                "0.5",
                label="At most",
                elem_id="budget-limit",
                visible=False,
                scale=2,
                min_width=110,
            )
            self.propose = gr.Button(
                "Propose", variant="primary", elem_id="propose", scale=0, min_width=110
            )
        self.about = gr.HTML(view.rule_about("uniform"), elem_id="rule-about")
        with gr.Row(elem_classes="wb-bar wb-options", equal_height=False):
            for name, option in rules.OPTIONS.items():
                self.options[name] = widget(name, option, name in rules.RULES["uniform"].options)

    # --- wiring -----------------------------------------------------------------------------------

    def frame(self) -> dict[str, Any]:
        return {f"keep{n}": slider for n, slider in enumerate(self.keeps)}

    def fitted(self, teacher: Teacher) -> Changes:
        """A slider for each stack of this teacher."""
        several = len(teacher.stacks) > 1
        out: Changes = {}
        for n in range(STACKS):
            stack = teacher.stacks[n] if n < len(teacher.stacks) else None
            label = f"Keep of {stack.path}" if several and stack else "Blocks to keep"
            depth = stack.depth if stack else 1
            out[f"keep{n}"] = gr.Slider(
                minimum=1,
                maximum=max(2, depth),
                value=max(1, depth // 2),
                visible=stack is not None,
                label=label,
            )
        return out

    def wire(self) -> None:
        page = self.page
        self.rule.input(self.on_rule, self.rule, [self.about, *self.options.values()], **QUIET)
        self.kind.input(self.on_kind, [self.kind, page.teacher], [self.limit, *self.keeps], **QUIET)
        fields = [self.rule, self.kind, self.limit, *self.keeps, *self.options.values()]
        self.propose.click(
            page.named(self.on_propose), [page.heat, *page.sight, *fields], page.shown, **QUIET
        )

    # --- handlers ---------------------------------------------------------------------------------

    def on_rule(self, rule: str) -> list[Any]:
        """What the rule does, its paper, and the options it has."""
        wanted = rules.RULES[rule].options if rule in rules.RULES else ()
        return [
            view.rule_about(rule),
            *(type(field)(visible=name in wanted) for name, field in self.options.items()),
        ]

    def on_kind(self, kind: str, key: str | None) -> list[Any]:
        count = len(view.stacks_of(self.page.store, key))
        return [
            gr.Textbox(value=EXAMPLES.get(kind, ""), visible=kind != "keep"),
            *(gr.Slider(visible=kind == "keep" and n < count) for n in range(STACKS)),
        ]

    def on_propose(
        self,
        heat: Any,
        key: str | None,
        chosen_map: str | None,
        weighting: str,
        given: str,
        rule: str,
        kind: str,
        limit: str,
        *fields: Any,
    ) -> Changes:
        keeps, values = fields[:STACKS], dict(zip(rules.OPTIONS, fields[STACKS:], strict=True))
        sight = (key, chosen_map, weighting, given)
        if rule in rules.RULES and rules.RULES[rule].measures:
            return self.started(sight, rule, kind, limit, keeps, values)

        def how(state: draft.Draft, seen: Look, _: list[int]) -> draft.Draft:
            if rule not in rules.RULES:
                raise BadInput(
                    f"rule {rule!r} is unknown", "one of " + ", ".join(rules.RULES), "choose one"
                )
            measured = self.map_for(rules.RULES[rule], seen)
            return state.to(
                rules.propose(
                    rule,
                    seen.teacher,
                    sensitivity=measured,
                    **budgeted(seen.teacher, kind, limit, keeps),
                    **asked(rule, values, seen.teacher),
                )
            )

        return self.page.apply(heat, *sight, how=how)

    def map_for(self, row: rules.Rule, seen: Look) -> SensitivityMap | None:
        """The map a rule reads: the one on screen where its metric is right, else another of this
        teacher.
        """
        if not row.needs_map or (
            seen.sensitivity is not None and row.metric in (None, seen.sensitivity.metric)
        ):
            return seen.sensitivity if row.needs_map else None
        store = self.page.store
        found = (
            catalogue.sensitivity(store, seen.teacher, path)
            for _, path in catalogue.maps(store, seen.teacher)
        )
        other = next(
            (m for m in found if m is not None and m.metric == row.metric), seen.sensitivity
        )
        if other is None:
            raise BadInput(
                f"the rule {row.title} needs a sensitivity map",
                f"one of {seen.teacher.name}",
                "choose one, or profile first",
            )
        return other

    def started(
        self,
        sight: tuple[Any, ...],
        rule: str,
        kind: str,
        limit: str,
        keeps: tuple[Any, ...],
        values: Mapping[str, Any],
    ) -> Changes:
        """A measured rule: a job, whose plan comes into the list of saved plans."""
        store = self.page.store
        try:
            seen = self.page.look(*sight)
            spec: dict[str, Any] = {
                "teacher": seen.teacher.name,
                "rule": rule,
                "sensitivity": sight[1] if seen.sensitivity else None,
            }
            spec |= (
                {"keep": wanted_depth(seen.teacher, keeps)}
                if kind == "keep"
                else {"budget": f"{kind}={limit}"}
            )
            spec |= {name: value for name, value in asked(rule, values, None).items()}
            name = re.sub(r"[^\w.\-]", "-", f"{rule}-{seen.teacher.name.rpartition('/')[2]}")[:60]
            spec["out"] = str(store.out("plan", name, ".yaml"))
            job = jobs.submit(store, "plan", spec, title=f"plan by {rules.RULES[rule].title}")
        except BadInput as error:
            return {"message": problem(str(error))}
        return {
            "message": notice(
                f"{job.title}: job {job.id} is {job.state}. Its plan will be in "
                f"“Picture & changes”, under saved plans."
            )
        }


def widget(name: str, option: rules.Option, visible: bool) -> Any:
    """The form's field for one option, explained beneath its label."""
    about: dict[str, Any] = {
        "label": option.label,
        "info": option.about,
        "elem_id": f"option-{name}",
        "visible": visible,
        "elem_classes": "wb-option",
        "min_width": 230,
        "scale": 1,
    }
    if option.kind == "choice":
        choices = ([AS_RULE] if option.default is None else []) + [
            (choice, choice) for choice in option.choices
        ]
        return gr.Dropdown(
            choices,
            value=option.default if option.default is not None else "",
            allow_custom_value=name == "gain",
            **about,
        )
    if option.kind == "bool":
        return gr.Checkbox(bool(option.default), **about)
    if option.kind == "blocks" or option.default is None:  # an empty number field would read 0
        return gr.Textbox(
            "", placeholder="0,1,23" if option.kind == "blocks" else "as the rule says", **about
        )
    return gr.Number(option.default, precision=0 if option.kind == "int" else None, **about)


def asked(rule: str, values: Mapping[str, Any], teacher: Teacher | None) -> dict[str, Any]:
    """The options a person set for this rule, as `rules.propose` takes them; with `teacher` None,
    as a job's spec does.
    """
    out: dict[str, Any] = {}
    for name in rules.RULES[rule].options:
        option, value = rules.OPTIONS[name], values.get(name)
        if value in (None, "", AS_RULE[1]) or (option.kind == "bool" and value == option.default):
            continue
        if option.kind == "blocks":
            blocks = block_numbers(value)
            out[name] = (
                blocks
                if teacher is None
                else {s.path: frozenset(b for b in blocks if b < s.depth) for s in teacher.stacks}
            )
        elif name == "gain":
            out[name] = value if value == "length" else positive(value, "gain")
        elif option.kind == "choice" and value not in option.choices:
            raise BadInput(
                f"{option.label} {value!r}", "one of " + ", ".join(option.choices), "choose one"
            )
        elif option.kind in ("int", "float"):
            out[name] = at_least_zero(value, option.label, whole=option.kind == "int")
        else:
            out[name] = value
    if teacher is None and "weighting" in out:
        out["timestep_weight"] = out.pop("weighting")
    return out


def block_numbers(text: Any) -> list[int]:
    try:
        return sorted({int(item) for item in str(text).replace(" ", "").split(",") if item})
    except ValueError:
        raise BadInput(
            f"protected blocks {str(text)[:40]!r}",
            "block numbers with commas",
            "write them like 0,1,23",
        ) from None


def wanted_depth(teacher: Teacher, keeps: tuple[Any, ...]) -> dict[str, int]:
    out = {}
    for stack, value in zip(teacher.stacks, keeps, strict=False):
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not 1 <= value <= stack.depth
        ):
            raise BadInput(
                f"keep {value!r} blocks of {stack.path}", f"1 to {stack.depth}", "move the slider"
            )
        out[stack.path] = int(value)
    return out


def budgeted(teacher: Teacher, kind: str, limit: Any, keeps: tuple[Any, ...]) -> dict[str, Any]:
    """Arguments of `rules.propose`: blocks per stack, or a budget."""
    if kind == "keep":
        return {"keep": wanted_depth(teacher, keeps)}
    if kind not in EXAMPLES:
        raise BadInput(
            f"budget {kind!r}", "one of " + ", ".join(name for _, name in BUDGETS), "choose one"
        )
    return {"keep": None, "budget": rules.Budget.parse(f"{kind}={limit}")}
