"""One command per verb, derived from its spec: each field becomes an argument or a flag."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

from ..specs import VERBS, Facts, Verb, VerbSpec, facts
from . import results
from .run import RunOptions, run_verb

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON object on stdout.")
]
Workspace = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Workspace folder [$WORKBENCH_WORKSPACE or ./workspace]."),
]
Background = Annotated[
    bool, typer.Option("--background", help="Queue as a job, print the job's id and return.")
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:N [the first GPU, else cpu].")
]
On = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help="Send as a job to a cluster: slurm (settings: slurm.yaml of the workspace), or a YAML "
        "file of settings (docs/cluster.md).",
    ),
]
PrintFor = Annotated[
    str,
    typer.Option(
        "--print",
        metavar="ENGINE",
        help="Print the file that a cluster's engine takes for this command, and run nothing: "
        "slurm, sky, dstack, ray.",
    ),
]
RUN_OPTIONS: dict[str, tuple[Any, Any]] = {  # parameter -> its annotation and default
    "as_json": (AsJson, False),
    "workspace": (Workspace, None),
    "background": (Background, False),
    "device": (Device, ""),
    "on": (On, ""),
    "print_for": (PrintFor, ""),
}
# Flags about printing, for verbs that have more than one way to print their result.
PRINT_OPTIONS: dict[str, dict[str, tuple[Any, Any]]] = {
    "plan": {
        "spans": (
            Annotated[
                bool, typer.Option("--print", help="Print every span and why the rule chose it.")
            ],
            False,
        )
    }
}


def add_to(app: typer.Typer) -> None:
    """Add a command for every verb to the app."""
    for name, verb in VERBS.items():
        app.command(name, short_help=verb.about)(command(name, verb))


def command(name: str, verb: Verb) -> Callable[..., None]:
    """The function that Typer calls: it gathers the flags that were given into the verb's spec."""
    fields = facts(verb.spec)
    print_options = PRINT_OPTIONS.get(name, {})
    run_options = dict(RUN_OPTIONS)
    if print_options:  # its --print is another one
        del run_options["print_for"]

    def call(**values: Any) -> None:
        options = RunOptions(**{key: values.pop(key) for key in run_options})
        shown = {key: values.pop(key) for key in print_options}
        spec = spec_from(verb.spec, values)
        run_verb(name, spec, options, results.printer(name, **shown))

    parameters = [parameter(fact) for fact in fields]
    for key, (annotation, default) in {**print_options, **run_options}.items():
        parameters.append(
            inspect.Parameter(
                key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
        )
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    call.__name__ = name.replace("-", "_")
    call.__doc__ = inspect.getdoc(verb.spec)
    return call


def spec_from(model: type[VerbSpec], values: dict[str, Any]) -> VerbSpec:
    """The spec of the flags that were given; relative paths are relative to the current folder."""
    given = {}
    for key, value in values.items():
        if value is not None and value != [] and value is not False:
            given[key] = value
    if values.get("parts") is False:  # --no-parts says something, unlike an absent flag
        given["parts"] = False
    return model.parse(given, f"workbench {model.verb}").located(Path.cwd())


def parameter(fact: Facts) -> inspect.Parameter:
    """A field as a parameter that Typer turns into an argument or an option."""
    kind = cli_type(fact)
    if fact.positional:
        info = typer.Argument(metavar=fact.metavar or fact.name.upper(), help=help_of(fact))
        default = fact.default
        if fact.required:
            default = inspect.Parameter.empty
        annotation: Any = Annotated[kind, info]
    else:
        info = typer.Option(
            *flags_of(fact, kind),
            metavar=metavar_of(fact, kind),
            help=help_of(fact),
        )
        default = None
        annotation = Annotated[Optional[kind], info]  # noqa: UP045  (kind is a value here)
    return inspect.Parameter(
        fact.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def flags_of(fact: Facts, kind: Any) -> list[str]:
    """The flag, its short form, its former names; --x/--no-x where unset, yes and no differ."""
    if kind is bool and fact.default is None:
        return [f"{fact.flag}/--no-{fact.flag.removeprefix('--')}"]
    flags = [fact.flag, *fact.other_flags, fact.short]
    return [flag for flag in flags if flag]


def cli_type(fact: Facts) -> Any:
    """The type that Typer parses: a switch, a list of repeated values, else text.

    The spec parses text, so that a wrong number is refused in the words of every other field.
    """
    if fact.parsed:
        return str
    kinds = [kind for kind in members(fact.annotation) if kind is not type(None)]
    if len(kinds) != 1:
        return str
    kind = kinds[0]
    if kind is bool:
        return bool
    if get_origin(kind) is list:
        return list[str]
    return str


def members(annotation: Any) -> tuple[Any, ...]:
    """The types of a union; the type alone where it is none."""
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)


def metavar_of(fact: Facts, kind: Any) -> str | None:
    """What stands for the value in --help; None for a switch."""
    if kind is bool:
        return None
    if fact.metavar:
        return fact.metavar
    for number, letter in ((int, "N"), (float, "X")):
        if number in members(fact.annotation) and not fact.parsed:
            return letter
    return fact.name.upper().replace("_", "-")


def help_of(fact: Facts) -> str:
    """The field's sentence, its choices, and what it is when it is not given."""
    text = fact.about.rstrip(".")
    choices = fact.choices or literals(fact.annotation)
    if choices:
        text += ": " + ", ".join(choices)
    default = default_of(fact)
    if default:
        text += f" [{default}]"
    return text + "."


def default_of(fact: Facts) -> str:
    """What holds where the flag is not given, in words; empty where there is nothing to say."""
    if fact.usual:
        return fact.usual
    if fact.positional or fact.default in (None, False, []):
        return ""
    if isinstance(fact.default, float):
        return f"{fact.default:g} {fact.unit}".rstrip()
    return f"{fact.default} {fact.unit}".rstrip()


def literals(annotation: Any) -> list[str]:
    """The values of a Literal, also inside a union with None."""
    for member in members(annotation):
        if get_origin(member) is Literal:
            return [str(value) for value in get_args(member)]
    return []
