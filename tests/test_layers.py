"""The table of docs and DESIGN section 8: who may import whom. Read from the source, so lazy
imports count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "workbench"
ROOMS = {  # room -> floor (docs/architecture.md)
    "records": 0,
    "plugins": 0,
    "specs": 1,
    "families": 1,
    "plans": 2,
    "rules": 2,
    "recipes": 2,
    "students": 3,
    "models": 3,
    "training": 3,
    "sensitivity": 4,
    "surgery": 4,
    "distillation": 4,
    "comparison": 4,
    "workspace": 5,
    "tasks": 6,
    "charts": 7,
    "ui": 8,
    "lab": 8,
    "cli": 8,
}
MAY = {
    0: {0},
    1: {0, 1},
    2: {0, 1, 2},
    3: {0, 1, 3},
    4: {0, 1, 2, 3},
    5: {0, 1, 5},
    6: {0, 1, 2, 3, 4, 5, 6},
    7: {0, 1, 2, 7},
    8: {0, 1, 2, 5, 7, 8},
}
CALLS_TASKS = {("cli", "tasks"), ("lab", "tasks")}  # inside a command, for the foreground
FACE = "workbench"  # workbench/__init__.py: lazy, may reach everything
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}
LIGHT = {0, 1, 2, 5, 7, 8}


def room_of(module: str) -> str:
    """workbench.rules.amber -> rules; workbench -> the face."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else FACE


def modules() -> dict[str, Path]:
    out = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


def imports(name: str, path: Path, known: dict[str, Path], top: bool = False) -> set[str]:
    """Every module it imports, absolute and relative, inside functions too; not under `if
    TYPE_CHECKING`. `top`: at import only.
    """
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found.update(
                f"{origin}.{alias.name}" if f"{origin}.{alias.name}" in known else origin
                for alias in node.names
            )
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


KNOWN = modules()


@pytest.mark.parametrize("module", [m for m in KNOWN if room_of(m) not in (FACE, "demo")])
def test_a_room_imports_only_what_its_layer_may(module: str):
    room = room_of(module)
    assert room in ROOMS, f"give {room} a layer here and in the table of docs"
    layer = ROOMS[room]
    for name in imports(module, KNOWN[module], KNOWN):
        if name.split(".")[0] != "workbench":
            assert not (layer in LIGHT and name.split(".")[0] in HEAVY), f"{module} imports {name}"
            continue
        other = room_of(name)
        if other in (room, FACE):
            continue
        if other == "demo":
            assert room == "tasks", f"{module} imports {name}; only tasks may"
        elif layer == ROOMS[other] == 4:
            raise AssertionError(f"verbs never import each other: {module} -> {name}")
        elif (room, other) not in CALLS_TASKS:
            assert ROOMS[other] in MAY[layer], (
                f"{module} (layer {layer}) imports {name} (layer {ROOMS[other]})"
            )


def test_the_demo_imports_floors_0_to_4_only():
    for module in (m for m in KNOWN if room_of(m) == "demo"):
        for name in imports(module, KNOWN[module], KNOWN):
            if name.startswith("workbench.") and room_of(name) != "demo":
                assert ROOMS[room_of(name)] <= 4, f"{module} imports {name}"


def test_front_ends_import_no_tasks_when_they_are_imported():
    for module in (m for m in KNOWN if ROOMS.get(room_of(m)) == 8):
        assert not [
            n
            for n in imports(module, KNOWN[module], KNOWN, top=True)
            if room_of(n) == "tasks" and n.startswith("workbench")
        ]


def test_imports_have_no_cycle():
    graph = {
        m: {n for n in imports(m, p, KNOWN, top=True) if n in KNOWN and n not in (m, "workbench")}
        for m, p in KNOWN.items()
    }
    packages = {m for m, p in KNOWN.items() if p.name == "__init__.py"}
    # A module of a package may import from the package's own __init__ and the other way round
    # (rules, tasks): one room.
    graph = {
        m: {n for n in ns if not (room_of(n) == room_of(m) and (n in packages or m in packages))}
        for m, ns in graph.items()
    }
    done: set[str] = set()

    def walk(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        if module not in done:
            for other in graph[module]:
                walk(other, (*trail, module))
            done.add(module)

    for module in graph:
        walk(module, ())


LAZY = [
    "workbench",
    "workbench.cli",
    "workbench.workspace.jobs",
    "workbench.workspace.worker",
    "workbench.workspace.session_client",
    "workbench.tasks",
    "workbench.rules",
    "workbench.charts",
    "workbench.ui",
]


def test_no_torch_where_none_is_needed():
    code = f"import sys, importlib\nfor m in {LAZY!r}:\n    importlib.import_module(m)\n    assert 'torch' not in sys.modules, m"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
