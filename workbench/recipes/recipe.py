"""Recipes: a plan rule with its options and a distillation spec in one YAML file, relative to
depth, so that it fits any teacher.

`workbench/recipes/<name>.yaml` has `paper`, `about`, `plan` and `distill` (a DistillSpec without
its name). `plan` has `rule`, `keep` (a share of each stack's depth), `budget` and options of
`rules.proposing`, and two things more:

released   lists the authors published for their own teacher, [{family, stack, depth, removed: [..]
| intervals: [[u, k], ..]}]: where the teacher is of that family and depth, the list is the plan,
and no map is needed student    what is otherwise where the teacher is itself a student (a recipe's
second step, on what its first step made)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from .. import plans
from ..records import BadInput, DistillSpec, Plan, Progress, SensitivityMap, Span, Teacher, yamlfile
from ..rules.budget import Budget

KEYS = {"paper", "about", "plan", "distill"}
# passed on to the rule
OPTIONS = {
    "weighting",
    "init",
    "gain",
    "single_from",
    "slim_from",
    "parts",
    "edits",
    "longest",
    "margin",
}
OTHERS = {"rule", "keep", "budget", "protect_ends", "released", "student"}
LISTED = {"family", "stack", "depth", "removed", "intervals"}


@dataclass(frozen=True)
class Recipe:
    name: str
    paper: str  # arXiv id; empty where ours
    about: str
    plan: dict[str, Any]
    distill: DistillSpec

    def settings(self, student: bool = False) -> dict[str, Any]:
        """The plan part, for an original teacher or for one that is a student."""
        return {**self.plan, **(self.plan.get("student") or {})} if student else self.plan

    def keep(self, teacher: Teacher, student: bool = False) -> dict[str, int]:
        """Student blocks per stack."""
        return {
            stack.path: max(1, round(self.settings(student).get("keep", 1.0) * stack.depth))
            for stack in teacher.stacks
        }

    def protect(self, teacher: Teacher) -> dict[str, frozenset[int]]:
        """Blocks that stay alone: `protect_ends: [a, b]` names the first a and the last b of each
        stack.
        """
        first, last = self.plan.get("protect_ends", (0, 0))
        return {
            s.path: frozenset([*range(first), *range(s.depth - last, s.depth)])
            for s in teacher.stacks
        }

    def released(self, teacher: Teacher, student: bool = False) -> Plan | None:
        """The list the authors published for this very teacher."""
        for listed in self.plan.get("released", []) if not student else []:
            stacks = {s.path: s.depth for s in teacher.stacks}
            if (
                listed["family"] == teacher.family
                and stacks.get(listed["stack"]) == listed["depth"]
            ):
                return listed_plan(listed, self.plan.get("init", "first"), teacher)
        return None

    def propose(
        self,
        teacher: Teacher,
        sensitivity: SensitivityMap | None = None,
        student: bool = False,
        **changes: Any,
    ) -> Plan:
        """The recipe's plan for a teacher; `changes` override the options of `rules.proposing`."""
        *_, last = self.proposing(teacher, sensitivity, student, **changes)
        plan: Plan = last.result.plan
        return plan

    def proposing(
        self,
        teacher: Teacher,
        sensitivity: SensitivityMap | None = None,
        student: bool = False,
        **changes: Any,
    ) -> Iterator[Progress]:
        """The same, told as it goes; the last Progress carries a rules.Proposed. A size or rule of
        one's own overrides a released list.
        """
        from ..rules import RULES, Proposed, proposing

        own_size = {"keep", "budget", "rule"} & set(changes)
        settings = self.settings(student)
        rule = changes.pop("rule", settings["rule"])
        usable = (
            OPTIONS
            if rule not in RULES
            else OPTIONS - ({"parts", "edits", "longest", "margin"} - set(RULES[rule].options))
        )
        options: dict[str, Any] = {key: settings[key] for key in usable if key in settings}
        if not {"keep", "budget"} & set(changes):
            options |= {
                "keep": self.keep(teacher, student),
                "budget": Budget.parse(settings.get("budget")),
            }
        options |= {"protect": self.protect(teacher)} | changes
        listed = None if own_size else self.released(teacher, student)
        if listed is not None and (sensitivity is None or options["budget"].empty):
            why = {path: ["released list"] * len(spans) for path, spans in listed.stacks.items()}
            listed = listed.model_copy(
                update={"origin": {"recipe": self.name, "rule": "released list"}}
            )
            yield Progress(
                step=1, total=1, message="done", result=Proposed(plans.check(listed, teacher), why)
            )
            return
        if listed is not None:
            options |= {"start": listed, "keep": None}
        for progress in proposing(rule, teacher, sensitivity=sensitivity, **options):
            if progress.result is not None:
                made = progress.result
                plan = made.plan.model_copy(
                    update={"origin": {"recipe": self.name, **made.plan.origin}}
                )
                progress = progress.model_copy(update={"result": Proposed(plan, made.why)})
            yield progress


def listed_plan(listed: Mapping[str, Any], init: str, teacher: Teacher) -> Plan:
    """A released list as a plan: blocks removed, or intervals that become one block each."""
    plan = plans.identity(teacher)
    stack = teacher.stack(listed["stack"])
    if "removed" in listed:
        spans = plans.spans_of_kept(
            stack.depth, set(range(stack.depth)) - set(listed["removed"]), stack.path
        )
    else:
        inside = {b for first, last in listed["intervals"] for b in range(first + 1, last + 1)}
        spans = plans.spans_of(stack.depth, set(range(stack.depth)) - inside)
        spans = [
            Span.model_validate({"blocks": s.blocks, "init": init}) if len(s) > 1 else s
            for s in spans
        ]
    return plans.check(
        plan.model_copy(update={"stacks": {**plan.stacks, stack.path: spans}}), teacher
    )


def names() -> list[str]:
    """The recipes that ship."""
    return sorted(
        file.name.removesuffix(".yaml")
        for file in _folder().iterdir()
        if file.name.endswith(".yaml")
    )


def load(name: str) -> Recipe:
    """A shipped recipe by its name, or a recipe file by its path."""
    if name in names():
        return parse((_folder() / f"{name}.yaml").read_text("utf-8"), name)
    if Path(name).is_file():
        return parse(Path(name).read_text("utf-8"), Path(name).stem)
    raise BadInput(
        f"recipe {name!r} is unknown", "one of " + ", ".join(names()) + ", or a file", "choose one"
    )


def parse(text: str, name: str) -> Recipe:
    """A recipe file. Raises BadInput with the first thing that is wrong in it."""
    try:
        data = yamlfile.parse(text)
    except yamlfile.YAMLError as error:
        raise BadInput(
            f"recipe {name} is not YAML ({' '.join(str(error).split())[:120]})",
            "a recipe file",
            "mend it",
        ) from None
    if (
        not isinstance(data, dict)
        or set(data) != KEYS
        or not isinstance(data["plan"], dict)
        or not isinstance(data["distill"], dict)
    ):
        raise BadInput(
            f"recipe {name} has "
            f"{', '.join(map(str, data)) if isinstance(data, dict) else 'no keys'}",
            ", ".join(sorted(KEYS)),
            "mend the file",
        )
    _check_plan(data["plan"], name)
    spec = DistillSpec.parse({"name": name, **data["distill"]}, f"recipe {name}")
    return Recipe(name, str(data["paper"] or ""), str(data["about"]), data["plan"], spec)


def _check_plan(plan: Mapping[str, Any], name: str) -> None:
    from ..rules import RULES

    second = plan.get("student") or {}
    if not isinstance(second, dict):
        raise BadInput(
            f"recipe {name}: student {second!r}", "settings of the plan", "mend the file"
        )
    if unknown := (set(plan) | set(second)) - OPTIONS - OTHERS:
        raise BadInput(
            f"recipe {name}: plan has {', '.join(sorted(map(str, unknown)))}",
            "some of " + ", ".join(sorted(OPTIONS | OTHERS)),
            "mend the file",
        )
    for settings in (plan, {**plan, **second}):
        if settings.get("rule") not in RULES:
            raise BadInput(
                f"recipe {name}: rule {settings.get('rule')!r}",
                "one of " + ", ".join(RULES),
                "mend the file",
            )
        keep = settings.get("keep", 1.0)
        if not isinstance(keep, int | float) or isinstance(keep, bool) or not 0 < keep <= 1:
            raise BadInput(
                f"recipe {name}: keep {keep}",
                "a share of the depth, above 0 and up to 1",
                "mend the file",
            )
        Budget.parse(settings.get("budget"))
    for listed in plan.get("released", []):
        if not isinstance(listed, dict) or set(listed) not in (
            LISTED - {"removed"},
            LISTED - {"intervals"},
        ):
            raise BadInput(
                f"recipe {name}: a released list with {listed!r}"[:160],
                "family, stack, depth, and removed or intervals",
                "mend the file",
            )


def _folder() -> Any:
    return resources.files("workbench.recipes")
