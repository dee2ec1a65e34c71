"""Who may import whom: the table of docs/architecture.md, read from the source.

Every import counts: inside functions, under TYPE_CHECKING, in `__init__`, and `import_module` of a
module of ours. What a registry imports by name when a row is used does not: that is its purpose.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "workbench"
FLOORS: list[tuple[str, ...]] = [  # a room may import rooms of lower floors, as MAY says
    ("records", "plugins"),
    ("families", "specs"),
    ("plans", "rules", "recipes", "study"),
    ("students", "models", "training"),
    ("sensitivity", "surgery", "distillation", "comparison", "release"),
    ("workspace",),
    ("tasks",),
    ("charts",),
    ("web", "ui", "lab", "cli"),
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MAY: dict[int, set[int]] = {
    0: {0},
    1: {0, 1},
    2: {0, 1, 2},
    3: {0, 1, 3},
    4: {0, 1, 2, 3},
    5: {0, 1},
    6: {0, 1, 2, 3, 4, 5},
    7: {0, 1, 2},
    8: {0, 1, 2, 5, 7},
}
# Inside a command, for work in the foreground.
CALLS_TASKS = {"cli", "lab"}
# Within a floor, a room may import the rooms left of it.
ORDERED = {0, 1, 2, 3, 8}
FACE = "workbench"
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors"}
WITHOUT_TORCH = {0, 1, 2, 5, 7, 8}


def room_of(module: str) -> str:
    """workbench.rules.amber -> rules; workbench -> the face."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return FACE
    return parts[1]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path], at_import: bool = False) -> set[str]:
    """The modules that a file imports. at_import: without those inside functions."""
    package = name.split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if at_import and (inside or is_type_checking(node)):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = origin_of(node, package)
            for alias in node.names:
                module = f"{origin}.{alias.name}"
                found.add(module if module in known else origin)
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            found.update(imported_by_name(node, package))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def origin_of(node: ast.ImportFrom, package: list[str]) -> str:
    """The absolute name of the module that `from .. import` names."""
    base = package[: len(package) - node.level + 1] if node.level else []
    return ".".join([*base, *([node.module] if node.module else [])])


def imported_by_name(node: ast.Call, package: list[str]) -> set[str]:
    """The module of an import_module call whose name begins with ours, in so far as it is text."""
    if not node.args:
        return set()
    text = ast.unparse(node.args[0]).strip("f'\"").replace("{__package__}", ".".join(package))
    return {text} if text.startswith("workbench.") else set()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


KNOWN = modules()
CHECKED = [name for name in KNOWN if room_of(name) not in (FACE, "demo")]


@pytest.mark.parametrize("module", CHECKED)
def test_a_room_imports_only_what_its_floor_may(module: str):
    room = room_of(module)
    assert room in FLOOR, f"give {room} a floor here and in docs/architecture.md"
    floor = FLOOR[room]
    for name in imports(module, KNOWN[module], KNOWN):
        top = name.split(".")[0]
        if top != "workbench":
            assert floor not in WITHOUT_TORCH or top not in HEAVY, f"{module} imports {name}"
            continue
        other = room_of(name)
        if other in (room, FACE):
            continue
        assert may_import(room, other), f"{module} (floor {floor}) imports {name}"


def may_import(room: str, other: str) -> bool:
    if other == "demo":
        return room == "tasks"
    if other == "tasks":
        return room in CALLS_TASKS
    floor = FLOOR[room]
    if FLOOR[other] != floor:
        return FLOOR[other] in MAY[floor]
    if floor not in ORDERED:
        return False
    return FLOORS[floor].index(other) < FLOORS[floor].index(room)


def test_the_demo_imports_floors_0_to_4_only():
    for module in KNOWN:
        if room_of(module) != "demo":
            continue
        for name in imports(module, KNOWN[module], KNOWN):
            if name.startswith("workbench.") and room_of(name) != "demo":
                assert FLOOR[room_of(name)] <= 4, f"{module} imports {name}"


def test_front_ends_import_no_tasks_when_they_are_imported():
    for module in KNOWN:
        if FLOOR.get(room_of(module)) != 8:
            continue
        for name in imports(module, KNOWN[module], KNOWN, at_import=True):
            assert not (name.startswith("workbench.") and room_of(name) == "tasks"), module


def test_modules_import_each_other_in_no_circle():
    graph = {}
    for module, path in KNOWN.items():
        if module == FACE:  # the functions of `workbench` import what they need when called
            continue
        graph[module] = {name for name in imports(module, path, KNOWN) if name in KNOWN}
        graph[module] -= {module, FACE}
    assert circle_in(graph) == []


def test_rooms_import_each_other_in_no_circle():
    graph: dict[str, set[str]] = {}
    for module, path in KNOWN.items():
        room = room_of(module)
        if room == FACE:
            continue
        others = {room_of(name) for name in imports(module, path, KNOWN) if name in KNOWN}
        graph.setdefault(room, set()).update(others - {room, FACE})
    assert circle_in(graph) == []


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """One circle as a list of names that ends where it begins; empty where there is none."""
    finished: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in finished:
            return []
        for other in sorted(graph.get(name, ())):
            circle = walk(other, [*trail, name])
            if circle:
                return circle
        finished.add(name)
        return []

    for name in sorted(graph):
        circle = walk(name, [])
        if circle:
            return circle
    return []


LAZY = [
    "workbench",
    "workbench.cli",
    "workbench.workspace.jobs",
    "workbench.workspace.worker",
    "workbench.workspace.session_client",
    "workbench.tasks",
    "workbench.rules",
    "workbench.recipes",
    "workbench.charts",
    "workbench.ui",
]


def test_no_torch_where_none_is_needed():
    code = (
        f"import sys, importlib\nfor m in {LAZY!r}:\n    importlib.import_module(m)\n"
        "    assert 'torch' not in sys.modules, m\n"
        "from workbench.plugins import KINDS, registry\n"
        "for kind in KINDS:\n    registry(kind).names()\n"
        "    assert 'torch' not in sys.modules, kind\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def json_readers(path: Path) -> list[int]:
    """Lines of a file that read JSON with the standard library's functions."""
    lines = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute) or node.attr not in ("load", "loads"):
            continue
        if isinstance(node.value, ast.Name) and node.value.id == "json":
            lines.append(node.lineno)
    return lines


def test_json_is_read_in_one_place():
    """records/jsonfile.py has the limits and the one-line errors."""
    own = PACKAGE / "records" / "jsonfile.py"
    later = PACKAGE / "tasks" / "reproduce" / "settings.py"
    elsewhere = {path: json_readers(path) for path in PACKAGE.rglob("*.py")}
    assert elsewhere.pop(own)
    elsewhere.pop(later)
    elsewhere.pop(PACKAGE / "release" / "space_files" / "app.py")  # runs without the workbench
    elsewhere.pop(PACKAGE / "comparison" / "scorers" / "learned.py")  # as well
    assert [f"{path}:{lines}" for path, lines in elsewhere.items() if lines] == []
