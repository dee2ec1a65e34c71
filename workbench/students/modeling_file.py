"""The modeling file that travels with a student: the modules of this package that make its class,
joined into one file.

Previews, training and loading here use the very same code, imported. `source` only joins it:
imports first, then each module's body, then the family's parts and its class.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from functools import cache
from types import ModuleType
from typing import Any

from ..families import FAMILIES, HYBRID, Family, StackRow
from . import hybrid_class, low_rank_linear, removed_parts
from .single_stream import attention
from .tables import block_class, modulation_linears, part_tables, returned_streams

PACKAGE = __name__.split(".")[0]
HEADER = '''"""{cls}: a {stock} whose blocks need not be alike.

Blocks in `single_stream_layers` have one stream: the image branch's weights serve text and image
tokens. Parts in `removed_parts` are gone. Blocks in `modulation_rank` have their AdaLN linears in
two factors. Everything else is the stock class of diffusers.

    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_pretrained(folder + "/transformer", trust_remote_code=True)

Written by DiT Workbench; needs torch and diffusers, nothing else. A hash of this text is in its
name.
"""

from __future__ import annotations
'''


@cache
def source(family: str) -> str:
    """The text of the family's modeling file."""
    row = FAMILIES[family]
    texts = [inspect.getsource(module) for module in joined_modules(family)]
    imports = [line for text in texts for line in absolute_imports(text)]
    imports.append(f"from {row.library} import {row.transformer}")
    sections = [HEADER.format(cls=HYBRID + row.transformer, stock=row.transformer)]
    sections += merged_imports(imports)
    sections += [f"\n\n{body(text)}" for text in texts]
    sections += ["\n", tables_text(row.stacks), "\n", class_text(row), ""]
    return "\n".join(sections)


def joined_modules(family: str) -> list[ModuleType]:
    """The modules that make a family's class, each after those it needs."""
    modules: list[ModuleType] = [low_rank_linear, removed_parts]
    block = block_class(family)
    if block is not None:
        block_module = inspect.getmodule(block)
        assert block_module is not None
        modules += [attention, block_module]
    return [*modules, hybrid_class]


def digest(family: str) -> str:
    """Twelve hex digits that tell one version of the modeling file from another."""
    return hashlib.sha256(source(family).encode()).hexdigest()[:12]


def module_name(family: str) -> str:
    """The name of the modeling file without .py. Its content is in its name: two students never
    share a cached module by mistake.
    """
    return f"modeling_hybrid_{family}_{digest(family)}"


def absolute_imports(text: str) -> list[str]:
    """The imports of a module from other packages, one name a line."""
    lines = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            lines += [f"import {alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and is_foreign(node):
            lines += [f"from {node.module} import {alias.name}" for alias in node.names]
    return lines


def is_foreign(node: ast.ImportFrom) -> bool:
    """Whether an import is from another package: this package's modules are joined instead."""
    origin = (node.module or "").split(".")[0]
    return node.level == 0 and origin not in ("__future__", PACKAGE)


def merged_imports(lines: list[str]) -> list[str]:
    """Imports without doubles: the standard library's, then those of other packages."""
    names: dict[str, set[str]] = {}
    plain = set()
    for line in lines:
        if line.startswith("import "):
            plain.add(line)
        else:
            module, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, set()).add(name)
    merged = sorted(plain)
    for module in sorted(names):
        merged.append(f"from {module} import {', '.join(sorted(names[module]))}")
    return [*filter(is_standard, merged), "", *[line for line in merged if not is_standard(line)]]


def is_standard(line: str) -> bool:
    """Whether an import is not of torch or diffusers."""
    return line.split()[1].split(".")[0] not in ("torch", "diffusers")


def body(text: str) -> str:
    """A module's text without its docstring and its imports, which stand at its top."""
    skipped = (ast.Import, ast.ImportFrom, ast.Expr)
    first = next(node for node in ast.parse(text).body if not isinstance(node, skipped))
    decorators = getattr(first, "decorator_list", [])
    start = min(node.lineno for node in [first, *decorators])
    lines = text.splitlines()[start - 1 :]
    return re.sub(r"  # type: ignore.*", "", "\n".join(lines)).strip()


def tables_text(stacks: tuple[StackRow, ...]) -> str:
    """The parts of the family's blocks, as Python."""
    lines = ["# What each part of a block is: stack -> part.", "PARTS = {"]
    for stack, table in part_tables(stacks).items():
        lines.append(f"    {stack!r}: {{")
        for name, part in table.items():
            lines.append(wrapped(f"        {name!r}: {as_code(part)},"))
        lines.append("    },")
    lines += ["}", *names_text("RETURNS", returned_streams(stacks))]
    lines += names_text("MODULATION", modulation_linears(stacks))
    return "\n".join(lines).replace("'", '"')


def names_text(title: str, table: dict[str, tuple[str, ...]]) -> list[str]:
    """A table of names by stack, as lines of Python."""
    lines = [f"{title} = {{"]
    lines += [f"    {stack!r}: {names!r}," for stack, names in table.items()]
    return [*lines, "}"]


def wrapped(line: str) -> str:
    """A part's line, broken before its rows where it is long."""
    if len(line) <= 100:
        return line
    line = line.replace("), Rows(", "),\n" + 22 * " " + "Rows(")
    return line.replace(", rows=", ",\n" + 16 * " " + "rows=")


def as_code(value: Any) -> str:
    """A value as Python: of named tuples only what differs from the defaults, long runs of numbers
    as ranges.
    """
    if isinstance(value, removed_parts.Part | removed_parts.Rows):
        defaults = value._field_defaults
        fields = []
        for name, item in value._asdict().items():
            if name not in defaults or item != defaults[name]:
                fields.append(f"{name}={as_code(item)}")
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple) and len(value) > 12:
        assert value == tuple(range(value[0], value[-1] + 1))
        return f"tuple(range({value[0]}, {value[-1] + 1}))"
    if isinstance(value, tuple):
        comma = "," if len(value) == 1 else ""
        return f"({', '.join(map(as_code, value))}{comma})"
    return repr(value)


def class_docstring(row: Family) -> str:
    return (
        f"{row.transformer} whose blocks are as its config says: single-stream, without some "
        "parts, with small AdaLN linears."
    )


def class_text(row: Family) -> str:
    """The student class, as Python."""
    cls = HYBRID + row.transformer
    arguments = [cls, "Path(__file__).stem", "Path(__file__).read_text", "PARTS", "RETURNS"]
    arguments.append("MODULATION")
    block = block_class(row.name)
    if block is not None:
        arguments += [f'"{row.dual_stack}"', block.__name__]
    lines = "".join(f"    {argument},\n" for argument in arguments)
    return (
        f"class {cls}({row.transformer}):\n"
        f'    """{class_docstring(row)}"""\n'
        "\n\n"
        f"make_hybrid(\n{lines})"
    )
