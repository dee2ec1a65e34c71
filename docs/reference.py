"""Write docs/reference.md: every verb and its options, from the specs: `python docs/reference.py`.

`python docs/reference.py --check` only says whether the page is current.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel  # noqa: E402

from workbench.records import DistillSpec, Loss, Plan, Span, Stage, Timesteps  # noqa: E402
from workbench.specs import VERBS, Facts, Verb, facts  # noqa: E402
from workbench.specs.study import StudySpec  # noqa: E402

PAGE = Path(__file__).with_name("reference.md")
HEAD = """# Reference

Written by `python docs/reference.py` from the models in `workbench/specs/` and
`workbench/records/`; a test holds it current.

An option has one name everywhere: `--sampling-steps 8` on the command line,
`sampling_steps=8` in `workbench.compare(..)`, `sampling_steps: 8` in a job's `spec.yaml`.
Every verb also takes `--json`, `--workspace DIR`, `--background` and `--device NAME`, and for
clusters `--on ENGINE` and (but for `plan`) `--print ENGINE`: see [cluster](cluster.md).
"""
FILES = {
    "plan.yaml": (Plan, Span),
    "distill.yaml": (DistillSpec, Stage, Loss, Timesteps),
}


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for name, verb in VERBS.items():
        parts.append(verb_section(name, verb))
    parts.append(verb_section("study create", Verb(StudySpec, "")))
    for name, models in FILES.items():
        parts.append(f"## {name}\n")
        for model in models:
            parts.append(model_section(model))
    return "\n".join(parts)


def verb_section(name: str, verb: Verb) -> str:
    """A verb: what it does, and a table of its options."""
    fields = facts(verb.spec)
    arguments = " ".join(fact.metavar or fact.name.upper() for fact in fields if fact.positional)
    lines = [f"## workbench {name} {arguments}".rstrip(), ""]
    lines += [inspect.getdoc(verb.spec) or "", ""]
    lines += ["| option | flag | default | what it is |", "|---|---|---|---|"]
    for fact in fields:
        flag = "(argument)" if fact.positional else f"`{fact.flag}`"
        lines.append(f"| `{fact.name}` | {flag} | {default_of(fact)} | {about_of(fact)} |")
    return "\n".join([*lines, ""])


def default_of(fact: Facts) -> str:
    """What holds when the option is not given."""
    if fact.required:
        return "required"
    if fact.usual:
        return escaped(fact.usual)
    if fact.default is None or fact.default == []:
        return "none"
    if isinstance(fact.default, bool):
        return "yes" if fact.default else "no"
    value = f"{fact.default:g}" if isinstance(fact.default, float) else str(fact.default)
    return escaped(f"{value} {fact.unit}".strip())


def about_of(fact: Facts) -> str:
    """The option's sentence, with its choices where the table of them is fixed."""
    text = fact.about
    if fact.choices:
        names = ", ".join(f"`{choice}`" for choice in fact.choices)
        text = f"{text.rstrip('.')}: {names}."
    return escaped(text)


def model_section(model: type[BaseModel]) -> str:
    """A record that people write: its fields with type, default and meaning."""
    lines = [f"### {model.__name__}", "", inspect.getdoc(model) or "", ""]
    lines += ["| key | type | default | what it is |", "|---|---|---|---|"]
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{schema[name].get('default')}`"
        about = escaped(field.description or "")
        lines.append(f"| `{name}` | {type_of(schema[name])} | {default} | {about} |")
    return "\n".join([*lines, ""])


def type_of(schema: dict[str, object]) -> str:
    """A JSON schema's type in a few words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])  # type: ignore[attr-defined]
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    options = schema.get("anyOf")
    if isinstance(options, list):
        return " or ".join(type_of(option) for option in options)
    return str(schema.get("type", "any"))


def escaped(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    if "--check" in sys.argv:
        current = PAGE.exists() and PAGE.read_text(encoding="utf-8") == page()
        sys.exit(0 if current else "docs/reference.md is out of date: run python docs/reference.py")
    PAGE.write_text(page(), encoding="utf-8")
