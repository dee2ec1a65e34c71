"""The modeling file that travels with a student: the modules of this package that make its class,
in one file.

Previews, training and loading here use the very same code, imported. `source` only joins it:
imports first, then each module's body, then the family's parts and its class.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from functools import cache
from typing import Any

from ..families import FAMILIES, StackRow
from . import hybrid_class as student
from . import removed_parts as parts
from .classes import PREFIX, block_class, dual_stack, part_tables, returns
from .single_stream import attention

HEADER = '''"""{cls}: a {stock} whose blocks need not be alike.

Blocks in `single_stream_layers` have one stream: the image branch's weights serve text and image tokens. Parts in `removed_parts` are
gone. Everything else is the stock class of diffusers.

    DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
    AutoModel.from_pretrained(folder + "/transformer", trust_remote_code=True)

Written by DiT Workbench; needs torch and diffusers, nothing else. A hash of this text is in its name.
"""

from __future__ import annotations
'''


@cache
def source(family: str) -> str:
    """The text of the family's modeling file."""
    row, cls = FAMILIES[family], PREFIX + FAMILIES[family].transformer
    block = block_class(family)
    modules = [parts, *([attention, inspect.getmodule(block)] if block else []), student]
    texts = [inspect.getsource(module) for module in modules if module]
    head = HEADER.format(cls=cls, stock=row.transformer)
    wanted = [
        *(line for text in texts for line in _imports(text)),
        f"from diffusers import {row.transformer}",
    ]
    bodies = [f"\n\n{_body(text)}" for text in texts]
    return "\n".join(
        [head, *_merged(wanted), *bodies, "\n", _tables(row.stacks), "\n", _class(family), ""]
    )


def digest(family: str) -> str:
    """Twelve hex digits that tell one version of the modeling file from another."""
    return hashlib.sha256(source(family).encode()).hexdigest()[:12]


def module_name(family: str) -> str:
    """The name of the modeling file without .py. Its content is in its name: two students never
    share a cached module by mistake.
    """
    return f"modeling_hybrid_{family}_{digest(family)}"


def _imports(text: str) -> list[str]:
    """The absolute imports of a module, one name a line."""
    out = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            out += [f"import {alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            out += [f"from {node.module} import {alias.name}" for alias in node.names]
    return out


def _merged(lines: list[str]) -> list[str]:
    """Imports without doubles: the standard library's, then the others."""
    names: dict[str, list[str]] = {}
    plain = sorted({line for line in lines if line.startswith("import ")})
    for line in sorted({line for line in lines if line.startswith("from ")}):
        module, _, name = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, []).append(name)
    froms = [f"from {module} import {', '.join(found)}" for module, found in sorted(names.items())]
    own = [
        line for line in plain + froms if line.split()[1].split(".")[0] in ("torch", "diffusers")
    ]
    return [*(line for line in plain + froms if line not in own), "", *own]


def _body(text: str) -> str:
    """A module without its docstring and its imports."""
    nodes, lines = ast.parse(text).body, text.splitlines()
    rest = [node for node in nodes if not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)]
    first = min(
        min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        for node in rest
    )
    return re.sub(r"  # type: ignore.*", "", "\n".join(lines[first - 1 :])).strip()


def _tables(stacks: tuple[StackRow, ...]) -> str:
    """The parts of the family's blocks, as Python."""
    out = ["# What each part of a block is: stack -> part.", "PARTS = {"]
    for stack, table in part_tables(stacks).items():
        out.append(f"    {stack!r}: {{")
        out += [_wrapped(f"        {name!r}: {_shown(part)},") for name, part in table.items()]
        out.append("    },")
    out += [
        "}",
        "RETURNS = {",
        *(f"    {stack!r}: {names!r}," for stack, names in returns(stacks).items()),
        "}",
    ]
    return "\n".join(out).replace("'", '"')


def _wrapped(line: str) -> str:
    """A part's line, broken before its rows where it is long."""
    if len(line) <= 120:
        return line
    return line.replace("), Rows(", "),\n" + 22 * " " + "Rows(").replace(
        ", rows=", ",\n" + 16 * " " + "rows="
    )


def _shown(value: Any) -> str:
    """A named tuple with the fields that differ from their defaults; long runs of numbers as
    ranges.
    """
    if isinstance(value, parts.Part | parts.Rows):
        default = value._field_defaults
        fields = {
            name: held
            for name, held in value._asdict().items()
            if name not in default or held != default[name]
        }
        return f"{type(value).__name__}({', '.join(f'{name}={_shown(held)}' for name, held in fields.items())})"
    if isinstance(value, tuple) and len(value) > 12:
        assert value == tuple(range(value[0], value[-1] + 1))
        return f"tuple(range({value[0]}, {value[-1] + 1}))"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def _class(family: str) -> str:
    row, block = FAMILIES[family], block_class(family)
    stack = f', "{dual_stack(family)}", {block.__name__}' if block else ""
    return (
        f"@hybrid(Path(__file__).stem, Path(__file__).read_text, PARTS, RETURNS{stack})\n"
        f"class {PREFIX}{row.transformer}({row.transformer}):\n"
        f'    """{row.transformer} with single-stream blocks and without some parts, as its '
        f'config.json says."""'
    )
