"""A recipe: a plan rule with its settings and a distillation spec, relative to depth, so that it
fits any teacher.

A recipe file has `paper`, `about`, `plan` (a RecipePlan) and `distill` (a DistillSpec without its
name).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ..plans import check, identity, spans_of, spans_of_kept
from ..records import (
    BadInput,
    DistillSpec,
    Init,
    Plan,
    Progress,
    Record,
    SensitivityMap,
    Span,
    StackInfo,
    Teacher,
)
from ..rules.budget import Budget
from ..rules.proposing import Proposed, proposing
from ..rules.table import RULES
from ..specs.values import Gain, Names, Rank


class ReleasedList(Record):
    """What the authors published for their own teacher: the blocks removed, or the intervals that
    become one block each.
    """

    family: str
    stack: str
    depth: int
    removed: list[int] | None = None
    intervals: list[tuple[int, int]] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.removed is None) == (self.intervals is None):
            raise ValueError("either removed or intervals")
        return self

    def fits(self, teacher: Teacher) -> bool:
        """Whether it was made for a teacher of this family and depth."""
        depths = {stack.path: stack.depth for stack in teacher.stacks}
        return teacher.family == self.family and depths.get(self.stack) == self.depth

    def plan(self, teacher: Teacher, init: Init) -> Plan:
        """The list as a plan; blocks of an interval start with `init`."""
        plan = identity(teacher)
        stack = teacher.stack(self.stack)
        stacks = {**plan.stacks, stack.path: self._spans(stack, init)}
        return check(plan.model_copy(update={"stacks": stacks}), teacher)

    def _spans(self, stack: StackInfo, init: Init) -> list[Span]:
        blocks = set(range(stack.depth))
        if self.removed is not None:
            return spans_of_kept(stack.depth, blocks - set(self.removed), stack.path)
        for first, last in self.intervals or []:
            blocks -= set(range(first + 1, last + 1))
        spans = spans_of(stack.depth, blocks)
        return [s.model_copy(update={"init": init}) if len(s) > 1 else s for s in spans]


def _known_rule(name: Any) -> Any:
    if name not in RULES:
        raise ValueError("one of " + ", ".join(RULES))
    return name


class RecipePlan(Record):
    """The plan part of a recipe: a rule, how much it keeps, and its settings.

    keep: a share of each stack's depth. budget: as in `workbench plan --budget`. protect_ends: how
    many blocks at the beginning and the end of each stack stay alone. released: lists the authors
    published; where the teacher fits one, the list is the plan, and no map is needed. student: what
    is otherwise where the teacher is itself a student (a recipe's second step, on what its first
    step made).
    """

    what: ClassVar[str] = "recipe"
    rule: Annotated[str, BeforeValidator(_known_rule)]
    keep: float = Field(default=1.0, gt=0, le=1)
    budget: str | float | None = None
    timestep_weight: str | None = None
    init: Init | None = None
    gain: Gain | None = None
    single_from: float | None = None
    slim_from: float | None = None
    modulation_rank: Rank | None = None
    parts: bool | None = None
    edits: Names | None = None
    whole_text: int | None = None
    longest: int | None = None
    margin: float | None = None
    protect_ends: tuple[int, int] = (0, 0)
    released: list[ReleasedList] = Field(default_factory=list)
    student: dict[str, Any] = Field(default_factory=dict)

    @field_validator("budget")
    @classmethod
    def _valid_budget(cls, value: str | float | None) -> str | float | None:
        Budget.parse(value)
        return value

    @model_validator(mode="after")
    def _valid_second_step(self) -> Self:
        if self.student:
            self.on_student()
        return self

    def on_student(self) -> RecipePlan:
        """The settings on a teacher that is itself a student."""
        data = self.model_dump(exclude={"student"})
        return RecipePlan.model_validate({**data, **self.student})

    def settings(self, rule: str) -> dict[str, Any]:
        """The settings that a rule takes, of those that the recipe sets."""
        values = self.model_dump(exclude_none=True)
        taken = set(RULES[rule].options) - {"protect", "start"}
        return {name: value for name, value in values.items() if name in taken}

    def counts(self, teacher: Teacher) -> dict[str, int]:
        """Student blocks to keep per stack."""
        return {s.path: max(1, round(self.keep * s.depth)) for s in teacher.stacks}

    def protect(self, teacher: Teacher) -> dict[str, frozenset[int]]:
        """Blocks that stay alone, per stack."""
        first, last = self.protect_ends
        out = {}
        for stack in teacher.stacks:
            ends = [*range(first), *range(stack.depth - last, stack.depth)]
            out[stack.path] = frozenset(ends)
        return out


@dataclass(frozen=True)
class Recipe:
    """One row of the table of recipes.

    paper: arXiv id; empty where ours.
    """

    name: str
    paper: str
    about: str
    plan: RecipePlan
    distill: DistillSpec

    def settings(self, student: bool = False) -> RecipePlan:
        """The plan part, for an original teacher or for one that is a student."""
        return self.plan.on_student() if student else self.plan

    def released(self, teacher: Teacher, student: bool = False) -> Plan | None:
        """The list that the authors published for this very teacher, as a plan."""
        if student:
            return None
        for listed in self.plan.released:
            if listed.fits(teacher):
                return listed.plan(teacher, self.plan.init or "first")
        return None

    def propose(
        self,
        teacher: Teacher,
        sensitivity: SensitivityMap | None = None,
        student: bool = False,
        **changes: Any,
    ) -> Plan:
        """The recipe's plan for a teacher; `changes` override arguments of `rules.proposing`."""
        *_, last = self.proposing(teacher, sensitivity, student, **changes)
        plan: Plan = last.result.plan
        return plan

    def proposing(
        self,
        teacher: Teacher,
        sensitivity: SensitivityMap | None = None,
        student: bool = False,
        *,
        rule: str | None = None,
        **changes: Any,
    ) -> Iterator[Progress]:
        """Let the recipe's rule decide; the last Progress carries a rules.Proposed.

        student: the teacher is itself a student. changes: arguments of `rules.proposing` that
        override the recipe's. A released list is the plan unless `rule` or a size is given; where
        the recipe has a budget beside it, and there is a map, the rule goes on from the list.
        """
        settings = self.settings(student)
        name = rule or settings.rule
        own_size = "keep" in changes or "budget" in changes
        arguments: dict[str, Any] = settings.settings(name)
        arguments["protect"] = settings.protect(teacher)
        if not own_size:
            arguments["keep"] = settings.counts(teacher)
            arguments["budget"] = Budget.parse(settings.budget)
        arguments |= changes
        listed = None
        if rule is None and not own_size:
            listed = self.released(teacher, student)
        if listed is not None:
            if sensitivity is None or arguments["budget"].empty:
                yield Progress(step=1, total=1, message="done", result=self._as_listed(listed))
                return
            arguments |= {"start": listed, "keep": None}
        for progress in proposing(name, teacher, sensitivity=sensitivity, **arguments):
            if progress.result is not None:
                result = self._signed(progress.result)
                progress = progress.model_copy(update={"result": result})
            yield progress

    def _as_listed(self, listed: Plan) -> Proposed:
        """A released list, with its origin."""
        why = {path: ["released list"] * len(spans) for path, spans in listed.stacks.items()}
        origin = {"recipe": self.name, "rule": "released list"}
        return Proposed(listed.model_copy(update={"origin": origin}), why)

    def _signed(self, proposed: Proposed) -> Proposed:
        """A rule's proposal, with the recipe's name in its origin."""
        origin = {"recipe": self.name, **proposed.plan.origin}
        return Proposed(proposed.plan.model_copy(update={"origin": origin}), proposed.why)


def recipe_of(data: Any, name: str) -> Recipe:
    """A recipe from the plain data of its file. Raises BadInput with the first fault in it."""
    keys = ("paper", "about", "plan", "distill")
    if not isinstance(data, Mapping):
        raise BadInput(f"recipe {name} is {type(data).__name__}", "keys and values", "fix the file")
    for key in data:
        if key not in keys:
            raise BadInput(f"recipe {name}: unknown key {key}", ", ".join(keys), "remove it")
    for key in keys:
        if key not in data:
            raise BadInput(f"recipe {name} without {key}", ", ".join(keys), "add it")
    if not isinstance(data["distill"], Mapping):
        found = f"recipe {name}: distill {data['distill']!r}"
        raise BadInput(found, "a distillation spec", "fix the file")
    plan = RecipePlan.parse(data["plan"], f"recipe {name}, plan")
    spec = DistillSpec.parse({"name": name, **data["distill"]}, f"recipe {name}")
    return Recipe(name, str(data["paper"] or ""), str(data["about"]), plan, spec)
