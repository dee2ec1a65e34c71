"""A spec as the words of a command line: the other way round from `commands.spec_from`."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from ..specs import VERBS, Facts, VerbSpec, facts


def words_of(verb: str, spec: VerbSpec) -> list[str]:
    """`verb` and the arguments and flags that give this spec. A run that can go on from what a
    stopped one left does.
    """
    data = spec.to_data()
    if "resume" in type(spec).model_fields:
        data["resume"] = True
    arguments: list[str] = []
    flags: list[str] = []
    for fact in facts(VERBS[verb].spec):
        if fact.name not in data:
            continue
        value = data[fact.name]
        if fact.positional:
            arguments += [str(item) for item in (value if isinstance(value, list) else [value])]
        else:
            flags += flag_of(fact, value)
    return [verb, *arguments, *flags]


def flag_of(fact: Facts, value: Any) -> list[str]:
    """A flag and its value; a switch alone."""
    if value is True:
        return [fact.flag]
    if value is False:
        return [f"--no-{fact.flag.removeprefix('--')}"]
    if fact.parsed:
        return [fact.flag, written(fact, value)]
    if isinstance(value, list):
        words = []
        for item in value:
            words += [fact.flag, str(item)]
        return words
    return [fact.flag, str(value)]


def written(fact: Facts, value: Any) -> str:
    """The text that a field of a written form of its own ("0,1,23", "stack=12") is given by."""
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    if not isinstance(value, list):
        return str(value)
    with_commas = ",".join(str(item) for item in value)
    if TypeAdapter(fact.annotation).validate_python(with_commas) == value:
        return with_commas
    return ";".join(str(item) for item in value)  # names that hold commas
