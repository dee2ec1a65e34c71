"""What the pages offer: teachers, maps, plans, recipes, models. Read without torch.

The bundled teachers and maps are plain files of the package.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..plugins import registry
from ..records import BadInput, SensitivityMap, Teacher
from ..records.sensitivity_map import VECTORS
from ..workspace.record_index import Entry
from ..workspace.store import Store

BUNDLED = {  # name -> files of the teacher and of its map
    "demo": ("teacher.json", "sensitivity.json"),
    "demo-12": ("teacher-12.json", "sensitivity-12.json"),
}
DAMAGED = " (damaged)"  # ends the label of a record that cannot be read
Choices = list[tuple[str, str]]  # label, value


def current(choices: Choices, chosen: str | None) -> str | None:
    """The chosen value where the list still has it, else the first sound one; None of an empty
    list.
    """
    if chosen in {value for _, value in choices}:
        return chosen
    values = [value for label, value in choices if not label.endswith(DAMAGED)]
    if not values:
        return None
    return values[0]


def damaged(store: Store, kind: str) -> Choices:
    """The records of a kind that cannot be read, for the end of its list: to choose one says why."""
    return [(row.name + DAMAGED, row.path) for row in store.damaged(kind)]


def comparisons(store: Store) -> Choices:
    """The finished comparisons, newest first."""
    choices = []
    for row in store.comparisons():
        choices.append((f"{row.name} ({', '.join(row.models)})", row.path))
    return choices + damaged(store, "comparison")


def package_file(*parts: str) -> Path:
    return Path(__file__).resolve().parents[1].joinpath(*parts)


def bundled_file(name: str) -> Path:
    return package_file("demo", name)


def teachers(store: Store) -> Choices:
    """The bundled teachers, then those of the workspace."""
    choices = []
    for name, (file, _) in BUNDLED.items():
        if bundled_file(file).exists():
            choices.append((f"{name} (bundled)", name))
    names = {value for _, value in choices}
    for row in store.teachers():
        if row.teacher not in names:
            choices.append((row.teacher, row.path))
    return choices + damaged(store, "teacher")


def teacher(store: Store, key: str | None) -> Teacher:
    """A teacher by its choice value. Raises BadInput for anything else that the browser sends."""
    if key in BUNDLED and bundled_file(BUNDLED[key][0]).exists():
        return read_teacher(str(bundled_file(BUNDLED[key][0])))
    if key not in {value for _, value in teachers(store)}:
        raise BadInput(
            f"teacher {key!r} is not in the list", "one of the list", "choose another or add it"
        )
    return read_teacher(str(key), Path(str(key)).stat().st_mtime)


def maps(store: Store, of: Teacher) -> Choices:
    """Maps of this teacher, newest first, the bundled one last."""
    choices = [(map_label(row), row.path) for row in store.maps() if is_map_of(row, of)]
    for name, (teacher_file, map_file) in BUNDLED.items():
        path = bundled_file(map_file)
        about = bundled_file(teacher_file)
        if not (path.exists() and about.exists()):
            continue
        if read_teacher(str(about)).fingerprint == of.fingerprint:
            choices.append((f"bundled map of {name}", str(path)))
    return choices + damaged(store, "map")


def vectors_beside(store: Store, of: Teacher, path: str | None) -> str | None:
    """The recorded conditioning vectors that profiling left beside a map of the list; None where
    there are none.
    """
    if path is None or path not in {value for _, value in maps(store, of)}:
        return None
    file = Path(path).with_suffix(VECTORS)
    return str(file) if file.is_file() else None


def map_label(row: Entry) -> str:
    """Name, metric, edits and number of timesteps of a map."""
    edits = ", ".join(row.edits)
    if len(row.edits) > 3:
        edits = f"{len(row.edits)} edits"
    label = f"{row.name}: {row.metric}, {edits}"
    if row.timesteps:
        label += f", {row.timesteps} timesteps"
    return label


def is_map_of(row: Entry, of: Teacher) -> bool:
    """Whether a map is of this teacher: by its weights where both are known, else by its name."""
    if row.family != of.family:
        return False
    if of.fingerprint and row.fingerprint:
        return row.fingerprint == of.fingerprint
    return row.teacher == of.name


def sensitivity(store: Store, of: Teacher, key: str | None) -> SensitivityMap | None:
    """A map by its choice value; None where none is chosen or it no longer exists."""
    if key is None or key not in {value for _, value in maps(store, of)}:
        return None
    return read_map(key, Path(key).stat().st_mtime)


def plans(store: Store, of: Teacher) -> Choices:
    """Saved plans of this teacher, newest first; those of other stacks are left out."""
    stacks = {stack.path for stack in of.stacks}
    choices = []
    for row in store.plans():
        same_teacher = row.teacher == of.name and row.family == of.family
        if same_teacher and set(row.depth) == stacks:
            choices.append((plan_label(row), row.path))
    return choices + damaged(store, "plan")


def plan_label(row: Entry) -> str:
    depth = "+".join(map(str, row.depth.values()))
    return f"{row.name} ({row.rule or 'by hand'}, {depth} blocks)"


def recipes() -> list[str]:
    """Names of the distillation recipes, `workbench` first."""
    return sorted(registry("recipe"), key=lambda name: (name != "workbench", name))


@lru_cache(maxsize=16)
def read_teacher(path: str, changed: float = 0.0) -> Teacher:
    """The record, read again when the file's time `changed`."""
    return Teacher.load(path)


@lru_cache(maxsize=16)
def read_map(path: str, changed: float = 0.0) -> SensitivityMap:
    """The record, read again when the file's time `changed`."""
    return SensitivityMap.load(path)


def students(store: Store) -> Choices:
    return [(row.name, row.path) for row in store.students()] + damaged(store, "student")


def models(store: Store) -> Choices:
    """Models that can be sampled: teachers under the names that people gave them, then students."""
    choices = []
    for label, value in teachers(store):
        if label.endswith(DAMAGED):
            continue
        name = value
        if value not in BUNDLED:
            name = teacher(store, value).name
        choices.append((label, name))
    return choices + students(store)
