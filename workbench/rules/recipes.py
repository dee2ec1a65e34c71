"""Recipes: a plan rule with its options and a distillation spec in one YAML file, relative to depth, so that it fits any teacher.

`workbench/recipes/<name>.yaml` has `paper`, `about`, `plan` (rule, keep as a share of each stack's depth, and options of
`rules.propose`) and `distill` (a DistillSpec without its name).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .. import yamlfile
from ..records import BadInput, DistillSpec, Plan, SensitivityMap, Teacher

KEYS = {"paper", "about", "plan", "distill"}
OPTIONS = {"rule", "keep", "weighting", "init", "gain", "protect_ends"}


@dataclass(frozen=True)
class Recipe:
    name: str
    paper: str  # arXiv id; empty where ours
    about: str
    plan: dict[str, Any]
    distill: DistillSpec

    def keep(self, teacher: Teacher) -> dict[str, int]:
        """Student blocks per stack."""
        return {stack.path: max(1, round(self.plan.get("keep", 1.0) * stack.depth)) for stack in teacher.stacks}

    def protect(self, teacher: Teacher) -> dict[str, frozenset[int]]:
        """Blocks that stay alone: `protect_ends: [a, b]` names the first a and the last b of each stack."""
        first, last = self.plan.get("protect_ends", (0, 0))
        return {s.path: frozenset([*range(first), *range(s.depth - last, s.depth)]) for s in teacher.stacks}

    def propose(self, teacher: Teacher, sensitivity: SensitivityMap | None = None, **changes: Any) -> Plan:
        """The recipe's plan for a teacher; `changes` override the options of `rules.propose`."""
        from . import propose

        options: dict[str, Any] = {key: self.plan[key] for key in ("weighting", "init", "gain") if key in self.plan}
        options |= {"keep": self.keep(teacher), "protect": self.protect(teacher)} | changes
        return propose(options.pop("rule", self.plan["rule"]), teacher, sensitivity=sensitivity, **options)


def names() -> list[str]:
    """The recipes that ship."""
    return sorted(file.name.removesuffix(".yaml") for file in _folder().iterdir() if file.name.endswith(".yaml"))


def load(name: str) -> Recipe:
    """A shipped recipe by its name, or a recipe file by its path."""
    if name in names():
        return parse((_folder() / f"{name}.yaml").read_text("utf-8"), name)
    if Path(name).is_file():
        return parse(Path(name).read_text("utf-8"), Path(name).stem)
    raise BadInput(f"recipe {name!r} is unknown", "one of " + ", ".join(names()) + ", or a file", "choose one")


def parse(text: str, name: str) -> Recipe:
    try:
        data = yamlfile.parse(text)
    except yamlfile.YAMLError as error:
        raise BadInput(f"recipe {name} is not YAML ({' '.join(str(error).split())[:120]})", "a recipe file", "mend it") from None
    if not isinstance(data, dict) or set(data) != KEYS or not isinstance(data["plan"], dict) or not isinstance(data["distill"], dict):
        raise BadInput(f"recipe {name} has {', '.join(map(str, data)) if isinstance(data, dict) else 'no keys'}", ", ".join(sorted(KEYS)),
                       "mend the file")
    if unknown := set(data["plan"]) - OPTIONS:
        raise BadInput(f"recipe {name}: plan has {', '.join(sorted(unknown))}", "some of " + ", ".join(sorted(OPTIONS)), "mend the file")
    if not 0 < float(data["plan"].get("keep", 1.0)) <= 1:
        raise BadInput(f"recipe {name}: keep {data['plan']['keep']}", "a share of the depth, above 0 and up to 1", "mend the file")
    spec = DistillSpec.parse({"name": name, **data["distill"]}, f"recipe {name}")
    return Recipe(name, str(data["paper"] or ""), str(data["about"]), data["plan"], spec)


def _folder() -> Any:
    return resources.files("workbench") / "recipes"
