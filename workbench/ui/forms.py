"""Forms: named values of widgets go into a handler, named changes come out.

Gradio passes a handler one positional value for each input widget and expects one for each output
widget. Here a form is a dataclass, `Fields` ties it to its widgets, and `connect` passes a handler
its forms and turns the changes that it returns, by widget name, into what Gradio expects. Tests
call handlers directly.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import gradio as gr
from gradio.blocks import Block

from ..records import BadInput
from .text import problem

Changes = dict[str, Any]  # widget name -> its new value; a widget that is not named stays as it is
Widgets = Mapping[str, Block]
Form = TypeVar("Form")


class Readable(Protocol):
    """Widgets whose values make one argument of a handler."""

    widgets: dict[str, Block]

    def read(self, values: Sequence[Any]) -> object:
        """The argument, from one value for each widget, in their order."""


class Fields(Generic[Form]):
    """A form's dataclass and the widget of each of its fields."""

    def __init__(self, form: type[Form], **widgets: Block):
        names = [field.name for field in dataclasses.fields(form)]  # type: ignore[arg-type]
        if set(names) != set(widgets):
            raise TypeError(f"{form.__name__} has the fields {names}, not {list(widgets)}")
        self.form = form
        self.widgets: dict[str, Block] = {name: widgets[name] for name in names}

    def read(self, values: Sequence[Any]) -> Form:
        return self.form(*values)


class Row:
    """Widgets of one kind, read as a tuple of their values."""

    def __init__(self, widgets: Mapping[str, Block]):
        self.widgets: dict[str, Block] = dict(widgets)

    def read(self, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values)


def connect(
    events: Sequence[Callable[..., Any]],
    handler: Callable[..., Changes],
    inputs: Sequence[Readable],
    outputs: Widgets,
    settled: bool = False,
    **how: Any,
) -> list[Any]:
    """Run `handler(*forms)` at each of the events; it returns changes of the `outputs` by name.

    settled: only once every edit of the plan that was made before it is confirmed (edits.js). A
    BadInput becomes one line in the output named `message`, where there is one. `how` is passed
    to Gradio. Returns Gradio's dependencies, one for each event.
    """
    widgets: list[Block] = []
    for group in inputs:
        widgets.extend(group.widgets.values())
    if settled:
        how["js"] = f"(...values) => workbench.settled(values.slice(0, {len(widgets)}))"
    listen = listener(handler, inputs, outputs)
    return [event(listen, widgets, list(outputs.values()), **how) for event in events]


def listener(
    handler: Callable[..., Changes], inputs: Sequence[Readable], outputs: Widgets
) -> Callable[..., Any]:
    """The handler as Gradio calls it: positional values in, changes by widget out."""

    def listen(*values: Any) -> dict[Block, Any]:
        try:
            changes = handler(*split(values, inputs))
        except BadInput as error:
            changes = {"message": problem(str(error))}
        except Exception as error:  # our fault: the page stays as it is, the log has the rest
            traceback.print_exc()
            changes = {"message": problem(fault(error))}
        if "message" not in outputs:
            changes.pop("message", None)
        first = next(iter(outputs.values()))
        return {outputs[name]: value for name, value in changes.items()} or {first: gr.skip()}

    listen.__name__ = getattr(handler, "__name__", "handler")
    return listen


def split(values: Sequence[Any], inputs: Sequence[Readable]) -> list[Any]:
    """The positional values as forms."""
    forms = []
    start = 0
    for group in inputs:
        end = start + len(group.widgets)
        forms.append(group.read(values[start:end]))
        start = end
    return forms


def fault(error: Exception) -> str:
    """One line about an error of the program."""
    return f"internal error ({type(error).__name__}: {str(error)[:200]}); see the app's log"
