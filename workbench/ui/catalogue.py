"""What the pages offer: teachers, maps, recipes; the bundled ones are plain files of the package,
read without torch.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..records import BadInput, SensitivityMap, Teacher
from ..workspace.record_index import Entry
from ..workspace.store import Store

BUNDLED = {
    "demo": ("teacher.json", "sensitivity.json"),
    "demo-12": ("teacher-12.json", "sensitivity-12.json"),
}
Choices = list[tuple[str, str]]  # label, value


def package_file(*parts: str) -> Path:
    return Path(__file__).resolve().parents[1].joinpath(*parts)


def teachers(store: Store) -> Choices:
    """The bundled teachers, then those of the workspace."""
    bundled = [
        (f"{name} (bundled)", name)
        for name, (file, _) in BUNDLED.items()
        if package_file("demo", file).exists()
    ]
    seen = {name for _, name in bundled}
    return bundled + [
        (row["teacher"], row["path"]) for row in store.teachers() if row["teacher"] not in seen
    ]


def teacher(store: Store, key: str | None) -> Teacher:
    """A teacher by its choice value; anything else from the browser is refused."""
    if key in BUNDLED and package_file("demo", BUNDLED[key][0]).exists():
        return read_teacher(str(package_file("demo", BUNDLED[key][0])))
    if key not in {value for _, value in teachers(store)}:
        raise BadInput(
            f"teacher {key!r} is not in the list", "one of the list", "choose another or add it"
        )
    return read_teacher(str(key), Path(str(key)).stat().st_mtime)


def maps(store: Store, of: Teacher) -> Choices:
    """Maps of this teacher, newest first, the bundled one last."""
    rows = [(label(row), row["path"]) for row in store.maps() if fits(row, of)]
    for name, (about, file) in BUNDLED.items():
        path, told = package_file("demo", file), package_file("demo", about)
        if (
            path.exists()
            and told.exists()
            and read_teacher(str(told)).fingerprint == of.fingerprint
        ):
            rows.append((f"bundled map of {name}", str(path)))
    return rows


def label(row: Entry) -> str:
    edits, times = row["edits"], f", {row['timesteps']} timesteps" if row["timesteps"] else ""
    told = ", ".join(edits) if len(edits) < 4 else f"{len(edits)} edits"
    return f"{row['name']}: {row['metric']}, {told}{times}"


def fits(row: Entry, of: Teacher) -> bool:
    same = (
        row["fingerprint"] == of.fingerprint
        if of.fingerprint and row["fingerprint"]
        else row["teacher"] == of.name
    )
    return row["family"] == of.family and same


def sensitivity(store: Store, of: Teacher, key: str | None) -> SensitivityMap | None:
    """A map by its choice value, or None where none is chosen or it is gone."""
    if key is None or key not in {value for _, value in maps(store, of)}:
        return None
    return read_map(key, Path(key).stat().st_mtime)


def plans(store: Store, of: Teacher) -> Choices:
    """Saved plans of this teacher, newest first; those of another depth are left out."""
    depth = {stack.path for stack in of.stacks}
    return [
        (
            f"{row['name']} ({row['rule'] or 'by hand'}, "
            f"{'+'.join(map(str, row['depth'].values()))} blocks)",
            row["path"],
        )
        for row in store.plans()
        if row["teacher"] == of.name and row["family"] == of.family and set(row["depth"]) == depth
    ]


def recipes() -> list[str]:
    """Names of the distillation recipes that the package ships."""
    found = {p.stem for p in package_file("recipes").glob("*.yaml")}
    return sorted(found, key=lambda name: (name != "workbench", name)) or ["workbench"]


@lru_cache(maxsize=16)
def read_teacher(path: str, changed: float = 0.0) -> Teacher:
    return Teacher.load(path)


@lru_cache(maxsize=16)
def read_map(path: str, changed: float = 0.0) -> SensitivityMap:
    return SensitivityMap.load(path)


def models(store: Store) -> Choices:
    """What can make pictures: teachers by the name a person gave, then students."""
    found = [
        (label, value if value in BUNDLED else teacher(store, value).name)
        for label, value in teachers(store)
    ]
    return found + [(row["name"], row["path"]) for row in store.students()]
