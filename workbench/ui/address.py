"""The address of what is on screen: page, teacher, map, panel, saved plan, selected blocks, job,
comparison. Reload, Back, Forward and a link that was sent show the same thing.

The browser keeps the address (address.js). An address holds names of records and is not to be
trusted: a name is looked for among what the workspace lists, and nothing else is done with it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from ..records import BadInput
from .catalogue import Choices
from .components import LAST, QUIET, chart
from .forms import Changes, Readable, connect

PAGES = {"plan": "Sensitivity & plan", "jobs": "Jobs", "compare": "Compare"}
PANELS = {
    "propose": "Propose",
    "block": "Block",
    "maps": "Compare maps",
    "picture": "Diagram & changes",
    "preview": "Preview",
    "table": "Table",
}
FORMS = {
    "build": "Build",
    "distill": "Distill",
    "profile": "Profile",
    "add": "Add a teacher",
}
SUFFIXES = (".json", ".yaml", ".yml")  # of files that are records
LONGEST = 200  # characters of a name
# Gradio runs this when the page has been loaded: the address takes the place of the first input.
AT_LOAD = (
    "(first, ...others) => [Object.fromEntries(new URLSearchParams(location.search)), ...others]"
)
# A note to address.js, which may not have been loaded yet.
NOTE = (
    "value => {{ (window.workbenchNotes ??= []).push(['{how}', {{{name}: {of}}}]); "
    "window.workbenchAddress?.take(); }}"
)


@dataclass(frozen=True)
class Place:
    """What an address names; empty where it names none.

    tab: the page; `page` would be Gradio's own. select: places on the block axis, as in `3-5,9`.
    number: of the steps Back and Forward in this window, 0 at its load.
    """

    tab: str = ""
    teacher: str = ""
    map: str = ""
    panel: str = ""
    plan: str = ""
    select: str = ""
    form: str = ""
    job: str = ""
    comparison: str = ""
    number: int = 0

    @classmethod
    def of(cls, sent: object) -> Place:
        """From what a browser sent; anything but short text is left out."""
        if not isinstance(sent, dict):
            return cls()
        values: dict[str, Any] = {}
        for field in fields(cls):
            value = sent.get(field.name)
            if isinstance(value, str) and field.name != "number" and len(value) <= LONGEST:
                values[field.name] = value
        if type(sent.get("number")) is int:
            values["number"] = sent["number"]
        return cls(**values)


class PlaceInput:
    """The address as an argument of handlers; it has to be the first (AT_LOAD)."""

    def __init__(self, widget: Block):
        self.widgets: dict[str, Block] = {"place": widget}

    def read(self, values: Sequence[Any]) -> Place:
        return Place.of(values[0])


def while_open(panel: str, handler: Callable[..., Changes]) -> Callable[..., Changes]:
    """The handler of a panel under the map, for when that panel is open: what nobody sees is not
    drawn. Its first input is the address; opening the panel runs it, too.
    """

    @wraps(handler)
    def on_event(place: Place, *forms: Any) -> Changes:
        is_open = place.tab in ("", "plan") and panel == (place.panel or "propose")
        return handler(*forms) if is_open else {}

    return on_event


class Address:
    """The component that follows the address of a window, and what is connected to it."""

    def build(self) -> None:
        self.widget = chart(
            {},
            "<div></div>",
            "address.js",
            names={},
            seen=0,
            labels={"tab": PAGES, "panel": PANELS, "form": FORMS},
            elem_id="address",
        )
        self.input = PlaceInput(self.widget)

    def arrive(
        self,
        demo: gr.Blocks,
        handler: Callable[..., Changes],
        forms: Sequence[Readable],
        outputs: Mapping[str, Block],
    ) -> None:
        """Run `handler(place, *forms)` when the page has been loaded and at each Back and Forward."""
        inputs: list[Readable] = [self.input, *forms]
        connect([demo.load], handler, inputs, outputs, js=AT_LOAD, **QUIET)
        connect([self.widget.moved], handler, inputs, outputs, **LAST)

    def step(self, name: str, event: Any, widget: Block, of: str = "value") -> None:
        """What a person chooses becomes a step that Back takes back. of: what names the record,
        from the widget's value, in JavaScript.
        """
        self.note(event, widget, NOTE.format(how="go", name=name, of=of))

    def keep(self, name: str, event: Any, widget: Block, of: str = "value") -> None:
        """What the page sets by itself is written into the address without a step."""
        self.note(event, widget, NOTE.format(how="keep", name=name, of=of))

    def note(self, event: Any, widget: Block, script: str) -> None:
        """Run a script at each event, also where the next one comes before it has ended."""
        event(None, [widget], js=script, trigger_mode="multiple", show_progress="hidden")


# --- names ----------------------------------------------------------------------------------------


def name_of(value: str) -> str:
    """The name of a listed record: of its file, or of the bundled teacher."""
    name = Path(value).name
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def names_of(choices: Choices) -> dict[str, str]:
    """Value -> name of each entry of a list; those of one name get a mark."""
    counts = Counter(name_of(value) for _, value in choices)
    names = {}
    for _, value in choices:
        name = name_of(value)
        if counts[name] > 1:
            name += "~" + hashlib.sha256(value.encode()).hexdigest()[:6]
        names[value] = name
    return names


def marked(*lists: Choices) -> dict[str, str]:
    """Value -> name of the entries whose name has a mark: the browser knows the others."""
    table: dict[str, str] = {}
    for choices in lists:
        names = names_of(choices)
        table |= {value: name for value, name in names.items() if name != name_of(value)}
    return table


def value_of(choices: Choices, name: str, what: str) -> str:
    """The value of the entry with this name. Raises BadInput where the list has none."""
    for value, known in names_of(choices).items():
        if known == name:
            return value
    raise unknown(what, name)


class Lookup:
    """Looks up the names of one address; what is not listed is remembered as a refusal."""

    def __init__(self) -> None:
        self.refusals: list[str] = []

    def value(self, choices: Choices, name: str, what: str) -> str | None:
        """The listed entry of this name; None where the address names none, or an unknown one."""
        try:
            return value_of(choices, name, what) if name else None
        except BadInput as error:
            self.refusals.append(str(error))
            return None

    def places(self, text: str, total: int) -> list[int]:
        """The selected blocks, of `total`; none where the address selects none, or unknown ones."""
        try:
            return places_of(text, total) if text else []
        except BadInput as error:
            self.refusals.append(str(error))
            return []


def unknown(what: str, name: str) -> BadInput:
    return BadInput(
        f"the address names {what} {name!r}",
        f"a {what} of this workspace",
        "choose one from the list",
    )


# --- selected blocks ------------------------------------------------------------------------------


def places_of(text: str, total: int) -> list[int]:
    """The places that `3-5,9` names, of `total`. Raises BadInput for anything else."""
    places: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        digits = first + (last or first)
        if not (first and digits.isascii() and digits.isdigit()):
            raise unknown("selection of blocks", text)
        begin, end = int(first), int(last or first)
        if not begin <= end < total:
            raise BadInput(
                f"the address selects blocks {text!r}",
                f"blocks from 0 to {total - 1}",
                "select some on the map",
            )
        places.update(range(begin, end + 1))
    return sorted(places)
