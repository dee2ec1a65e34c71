"""A form for chosen fields of a verb's spec.

Labels, explanations, units, choices and defaults come from the spec (`specs.facts`), as the
command line's flags do. `SpecForm` builds the widgets and reads them as `SpecInput`, which becomes
the typed spec, or the command line that does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin

import gradio as gr
from gradio.blocks import Block

from ..records import BadInput
from ..specs import Facts, VerbSpec, facts
from .access import Access
from .command_line import command_line
from .components import OPEN

Spec = TypeVar("Spec", bound=VerbSpec)
Choices = Sequence[str | tuple[str, str]]  # values, or (label, value)
LONGEST_PLACEHOLDER = 26  # characters that a narrow field shows
UNSET: tuple[Any, ...] = ("", None, [])


@dataclass(frozen=True)
class Choice:
    """A field whose choices the page knows better than the spec: students, a teacher's edits."""

    choices: Callable[[], Choices] = list
    default: Any = None
    many: bool = False
    info: str = ""  # instead of the spec's, where that explains how to write the value


@dataclass(frozen=True)
class SpecInput(Generic[Spec]):
    """The fields of a form as the browser sent them; those left empty are not set."""

    spec: type[Spec]
    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def data(self) -> dict[str, Any]:
        """The fields that are set: those that differ from what the spec has by default."""
        set_fields = {}
        for fact in facts(self.spec):
            value = self.values.get(fact.name)
            if isinstance(value, str):
                value = from_text(fact, value)
            if value not in UNSET and value != fact.default:
                set_fields[fact.name] = value
        return set_fields

    def only(self, names: Sequence[str]) -> SpecInput[Spec]:
        """The same form with these fields alone."""
        values = {name: value for name, value in self.values.items() if name in names}
        return SpecInput(self.spec, values)

    def without(self, name: str) -> SpecInput[Spec]:
        """The same form without a field."""
        return self.only([other for other in self.values if other != name])

    def parse(self, access: Access, **more: Any) -> Spec:
        """The typed spec, with further fields, which the page knows.

        Raises BadInput for the first wrong field, and for a file that a browser may not open.
        """
        data = access.opened(self.spec, self.data())
        for fact in facts(self.spec):
            if fact.name in data:
                check_choice(fact, data[fact.name])
        return self.spec.parse({**data, **more})

    def command(self, workspace: Path, **more: Any) -> str:
        """The command line that does the same, as a job."""
        return command_line(self.spec, {**self.data(), **more}, workspace)


@dataclass
class SpecForm(Generic[Spec]):
    """Widgets for chosen fields of a spec, `advanced` ones folded away.

    prefix: of the widgets' ids in the page. custom: fields whose choices the page knows. defaults:
    what fields hold when the form opens, where that is not the spec's default.
    """

    spec: type[Spec]
    names: Sequence[str]
    prefix: str
    custom: Mapping[str, Choice] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    widgets: dict[str, Block] = field(default_factory=dict)

    @property
    def facts(self) -> list[Facts]:
        """The chosen fields, in the order of `names`."""
        known = {fact.name: fact for fact in facts(self.spec)}
        return [known[name] for name in self.names]

    def build(self) -> None:
        """Make the widgets: in a row, the advanced ones in a folded row beneath."""
        widgets = self.build_row([fact for fact in self.facts if not fact.advanced])
        advanced = [fact for fact in self.facts if fact.advanced]
        if advanced:
            with gr.Accordion("More options", open=False):
                widgets |= self.build_row(advanced)
        self.widgets = {name: widgets[name] for name in self.names}

    def build_row(self, row: Sequence[Facts]) -> dict[str, Block]:
        with gr.Row(elem_classes="wb-bar wb-options", equal_height=False):
            return {fact.name: self.build_field(fact) for fact in row}

    @property
    def inputs(self) -> list[Any]:
        """The widgets, with the events that Gradio gives inputs."""
        return list(self.widgets.values())

    def build_field(self, fact: Facts, **more: Any) -> Block:
        """One widget, explained beneath its label."""
        about = {
            "label": label_of(fact),
            "info": info_of(fact),
            "elem_id": f"{self.prefix}-{fact.name.replace('_', '-')}",
            "elem_classes": "wb-option",
            "min_width": 230,
            "scale": 1,
            **more,
        }
        if fact.name in self.custom:
            return build_choice(self.custom[fact.name], about)
        return build_widget(replace(fact, default=self.opening(fact)), about)

    def read(self, values: Sequence[Any]) -> SpecInput[Spec]:
        """The handler's argument, from one value for each widget."""
        return SpecInput(self.spec, dict(zip(self.widgets, values, strict=True)))

    def filled(self, **values: Any) -> SpecInput[Spec]:
        """The form as it opens, with some fields changed: what a test passes to a handler."""
        opened = {fact.name: self.opening(fact) for fact in self.facts}
        return SpecInput(self.spec, {**opened, **values})

    def opening(self, fact: Facts) -> Any:
        if fact.name in self.custom:
            return self.custom[fact.name].default
        return self.defaults.get(fact.name, fact.default)


def build_choice(choice: Choice, about: dict[str, Any]) -> Block:
    if choice.info:
        about["info"] = choice.info
    if choice.many:
        return gr.CheckboxGroup(list(choice.choices()), value=choice.default, **about)
    return gr.Dropdown(list(choice.choices()), value=choice.default, **about)


def build_widget(fact: Facts, about: dict[str, Any]) -> Block:
    """The widget that suits a field's type. Limits are the spec's to check: one line, no alarm."""
    if bool in members(fact.annotation):
        if fact.default is None:
            return gr.Dropdown(unset_first(fact, ["yes", "no"]), value="", **about)
        return gr.Checkbox(bool(fact.default), **about)
    choices = choices_of(fact)
    if choices and is_list(fact):
        return gr.Dropdown(choices, value=fact.default or [], multiselect=True, **about)
    if choices:
        return build_dropdown(fact, choices, about)
    if fact.default is None or not isinstance(fact.default, int | float):
        # an empty number field would read 0
        return gr.Textbox(
            written(fact.default), placeholder=placeholder_of(fact), max_lines=1, **about
        )
    if isinstance(fact.default, int):
        about["precision"] = 0
    return gr.Number(fact.default, **about)


def build_dropdown(fact: Facts, choices: list[str], about: dict[str, Any]) -> gr.Dropdown:
    options: list[Any] = list(choices)
    if not fact.required and fact.default is None:
        options = unset_first(fact, choices)
        about["info"] = about_of(fact)  # the first option says what unset means
    if accepts_other(fact):
        about |= OPEN
    return gr.Dropdown(options, value=fact.default or "", **about)


def unset_first(fact: Facts, choices: Sequence[str]) -> list[tuple[str, str]]:
    """The choices behind one for "not set"."""
    unset = fact.usual or "not set"
    return [(unset, ""), *((choice, choice) for choice in choices)]


def main_button(label: str, name: str) -> gr.Button:
    return gr.Button(label, variant="primary", elem_id=name, min_width=150, scale=0)


def command_field(name: str) -> gr.Code:
    """Where a form shows its command line."""
    return gr.Code(
        "",
        language="shell",
        label="The same on the command line",
        elem_id=name,
        lines=1,
        wrap_lines=True,
        elem_classes="wb-line",
        interactive=False,
    )


def names_but(spec: type[VerbSpec], left_out: Sequence[str]) -> list[str]:
    """All fields of a spec but those: a new field of the spec appears in the form."""
    return [fact.name for fact in facts(spec) if fact.name not in left_out]


# --- what a field is ------------------------------------------------------------------------------


def label_of(fact: Facts) -> str:
    """The field's label with its unit, unless the label says it."""
    if fact.unit and fact.unit not in fact.label:
        return f"{fact.label} ({fact.unit})"
    return fact.label


def info_of(fact: Facts) -> str:
    """The field's sentence, and what leaving it empty means, where the field itself cannot say it."""
    about = about_of(fact)
    if fact.usual and fact.default is None and not placeholder_of(fact):
        return f"{about} Empty: {fact.usual}."
    return about


def about_of(fact: Facts) -> str:
    """The field's sentence, without what its label says already."""
    prefix = f"{fact.label}: "
    if not fact.about.startswith(prefix):
        return fact.about
    sentence = fact.about.removeprefix(prefix)
    return sentence[:1].upper() + sentence[1:]


def placeholder_of(fact: Facts) -> str:
    """What the empty field shows: what leaving it empty means, if that is short enough."""
    if len(fact.usual) > LONGEST_PLACEHOLDER:
        return ""
    return fact.usual


def choices_of(fact: Facts) -> list[str]:
    """The values to offer: a registry's names, or those of a Literal; empty where any will do."""
    if fact.choices:
        return fact.choices
    for member in members(fact.annotation):
        if get_origin(member) is Literal:
            return [str(value) for value in get_args(member)]
    return []


def accepts_other(fact: Facts) -> bool:
    """Whether a value that is not offered may do too: a number, or a file's path."""
    return fact.place == "file-or-name" or bool({int, float} & set(members(fact.annotation)))


def is_list(fact: Facts) -> bool:
    return any(get_origin(member) is list for member in members(fact.annotation))


def members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, annotated ones bare; the type alone where it is none."""
    if hasattr(annotation, "__metadata__"):
        return members(annotation.__origin__)
    if get_origin(annotation) not in (Union, UnionType):
        return (annotation,)
    types: list[Any] = []
    for member in get_args(annotation):
        types.extend(members(member))
    return tuple(types)


def written(value: Any) -> str:
    """A default as text for a text field."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(value)
    return str(value)


def from_text(fact: Facts, text: str) -> Any:
    """A list from text with commas, a bool from yes and no; the spec parses any other text."""
    if is_list(fact) and not fact.parsed:
        return [item.strip() for item in text.split(",") if item.strip()]
    if bool in members(fact.annotation):
        return {"yes": True, "no": False}.get(text, text)
    return text


def check_choice(fact: Facts, value: Any) -> None:
    """Raise BadInput where the browser sent what the field does not offer."""
    if accepts_other(fact):
        return
    choices = choices_of(fact)
    values = value if isinstance(value, list) else [value]
    for item in values:
        if choices and item not in choices:
            raise BadInput(
                f"{label_of(fact)} {item!r}", "one of " + ", ".join(choices), "choose one"
            )
