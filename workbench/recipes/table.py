"""The table of recipes: the YAML files beside this module, each read when it is first used."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..plugins import Lazy, Registry, registry
from ..records import read_text, read_yaml, yamlfile
from .recipe import Recipe, recipe_of

FOLDER = Path(__file__).parent
ROWS: dict[str, Lazy] = {
    file.stem: Lazy(f"{__name__}:{file.stem}") for file in sorted(FOLDER.glob("*.yaml"))
}
RECIPES: Registry[Recipe] = registry("recipe")


def __getattr__(name: str) -> Recipe:
    """A shipped recipe, which its Lazy row names as an attribute of this module."""
    if name not in ROWS:
        raise AttributeError(name)
    return shipped(name)


@cache
def shipped(name: str) -> Recipe:
    """A recipe of this folder."""
    return load_file(FOLDER / f"{name}.yaml")


def load(name: str) -> Recipe:
    """A recipe by its name in the table, or a recipe file by its path. Raises BadInput."""
    if name not in RECIPES and Path(name).is_file():
        return load_file(Path(name))
    return RECIPES[name]


def load_file(path: Path) -> Recipe:
    """A recipe file. Raises BadInput with the first fault in it."""
    text = read_text(path, "recipe", yamlfile.MOST_BYTES)
    return recipe_of(read_yaml(text, f"recipe {path.stem}", "recipe"), path.stem)
