"""The table of rules: one row each. A rule's row lives at the end of its own file."""

from __future__ import annotations

from ..plugins import Registry, registry
from . import amber, greedy, hierarchical, influence, ppcl, recoverable, search, uniform
from .base import Rule

ROWS: dict[str, Rule] = {
    "uniform": uniform.RULE,
    "influence": influence.RULE,
    "amber": amber.RULE,
    "amber-hybrid": amber.HYBRID,
    "hierarchical": hierarchical.RULE,
    "ppcl": ppcl.RULE,
    "recoverable": recoverable.RULE,
    "greedy": greedy.RULE,
    "search": search.RULE,
}
RULES: Registry[Rule] = registry("rule")
