"""The command line that does what a form does, derived from the spec."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from ..specs import Facts, VerbSpec, facts


def command_line(spec: type[VerbSpec], data: Mapping[str, object], workspace: Path) -> str:
    """`workbench VERB ..` for the fields in `data`, as a job in a workspace.

    A required field that is not in `data` appears as its name in capitals, as in --help.
    """
    positional: list[str] = []
    flags: list[str] = []
    for fact in facts(spec):
        value = data.get(fact.name)
        if fact.positional:
            positional += arguments_of(fact, value)
        elif value is not None:
            flags += flags_of(fact, value)
    flags += ["--workspace", str(workspace), "--background"]
    return " ".join(["workbench", spec.verb, *positional, shlex.join(flags)])


def arguments_of(fact: Facts, value: object) -> list[str]:
    """The positional arguments of a field, quoted; its name where it has no value."""
    if value in (None, "", []):
        return [fact.metavar or fact.name.upper()]
    if isinstance(value, list):
        return [shlex.quote(str(item)) for item in value]
    return [shlex.quote(str(value))]


def flags_of(fact: Facts, value: object) -> list[str]:
    """The flags of a field that is set."""
    if value is True:
        return [fact.flag]
    if value is False:
        return [f"--no-{fact.flag.removeprefix('--')}"]
    if isinstance(value, list) and not fact.parsed:  # a flag that is repeated
        flags = []
        for item in value:
            flags += [fact.flag, str(item)]
        return flags
    return [fact.short or fact.flag, text_of(value)]


def text_of(value: object) -> str:
    """A value as one argument: a,b,c or STACK=N,.. where it is several."""
    if isinstance(value, dict):
        return ",".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
