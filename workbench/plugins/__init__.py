"""Registries: tables of families, rules, metrics, losses, scorers .. that a user can add rows to.

`kinds` lists what can be added and where the built-in rows are. Three ways to add a row, none of
which touches this package:

    workbench.register("rule", "mine", Rule(..))                # in a notebook or a plugin file
    workbench plan demo --rule mine --plugin my_rules.py        # on any verb
    [project.entry-points."workbench.rules"]                    # in a package's pyproject.toml
    mine = "my_package.rules:MINE"
"""

from __future__ import annotations

from .files import load_from_environment, load_plugin, loaded_plugins
from .kinds import KINDS, Kind
from .registry import Lazy, Registry, register, registry, unregister

__all__ = [
    "KINDS",
    "Kind",
    "Lazy",
    "Registry",
    "load_from_environment",
    "load_plugin",
    "loaded_plugins",
    "register",
    "registry",
    "unregister",
]
