"""What a rule is, what it is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import plans
from ..records import BadInput, Init, Plan, Progress, SensitivityMap, Span, StackInfo, Teacher
from .budget import Budget

Spans = dict[str, list[Span]]
Scores = dict[tuple[str, int], float]


@dataclass
class Proposal:
    """Spans per stack, and for each span in a few words why; `why` may be empty."""

    stacks: Spans
    why: dict[str, list[str]] = field(default_factory=dict)


Work = Generator[Progress, None, Proposal]  # a rule that takes its time tells how far it is


@dataclass(frozen=True)
class Rule:
    """One row of RULES: a published (or our own) way to a plan."""

    propose: Callable[[Request], Proposal | Work]
    title: str
    paper: str  # arXiv id or URL, empty where ours
    needs_map: bool
    init: Init  # what the rule does with a span unless told otherwise
    about: str
    # names in OPTIONS: what a person may set
    options: tuple[str, ...] = ("init", "gain", "protect", "single_from", "slim_from")
    # runs the teacher while it decides: a job, not a click; gives each span its init and gain
    measures: bool = False
    metric: str | None = None  # of the map it reads; None: it reads none
    weighting: str = "normalised"  # of timesteps, unless told otherwise
    shapes: bool = False  # gives each span its init and gain, from its map
    # goes to the budget by steps of its own; else the depth that meets the budget is found for it
    walks: bool = False

    @property
    def link(self) -> str:
        """Where the paper is; empty where the rule is ours."""
        return (
            self.paper
            if not self.paper or "://" in self.paper
            else f"https://arxiv.org/abs/{self.paper}"
        )


def nothing(plan: Plan) -> None:
    """What `settle` does where states are not kept."""


def as_it_is(plan: Plan) -> Plan:
    """What `finish` does where nothing follows the rule."""
    return plan


@dataclass(frozen=True)
class Request:
    """What a rule works from.

    `keep` counts student blocks per stack (rules that walk look at `budget` instead); `protect`
    lists blocks that stay alone. `measure(plan)` is the error of a student before training, lower
    is better; `settle(plan)` tells who measures that the next plans will be like this one. `init`
    and `gain` are None unless a person set them. `start` is the plan to go on from.
    """

    teacher: Teacher
    keep: Mapping[str, int] = field(default_factory=dict)
    sensitivity: SensitivityMap | None = None
    weighting: str | Mapping[float, float] = "normalised"
    protect: Mapping[str, frozenset[int]] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    init: Init | None = None
    gain: float | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    measure: Callable[[Plan], float] | None = None
    settle: Callable[[Plan], None] = nothing
    start: Plan | None = None
    # what follows the rule: deep blocks made single-stream or slim
    finish: Callable[[Plan], Plan] = as_it_is

    def fixed(self, stack: StackInfo) -> set[int]:
        """Blocks that must begin a span: block 0, and each protected block with its follower, so
        that it stays alone.
        """
        fixed = self.walls(stack)
        keep = self.keep.get(stack.path, stack.depth)
        if len(fixed) > keep:
            raise BadInput(
                f"{len(fixed)} spans are needed to protect "
                f"{len(self.protect.get(stack.path, ()))} blocks of {stack.path}",
                f"at most {keep}",
                "protect fewer blocks or keep more",
            )
        return fixed

    def walls(self, stack: StackInfo) -> set[int]:
        """Where a span must begin whatever the budget."""
        protect = self.protect.get(stack.path, frozenset())
        return {0} | {b for p in protect for b in (p, p + 1) if b < stack.depth}

    def scores(self, edit: str = "drop") -> Scores:
        """(stack, block) -> sensitivity, higher = keep."""
        if self.sensitivity is None:
            raise BadInput(
                "no sensitivity map",
                "a map of this teacher",
                "run `workbench profile` and pass --sensitivity map.json",
            )
        scores = plans.block_scores(self.sensitivity, edit, self.weighting)
        if not scores:
            raise BadInput(
                f"the map has no rows of edit {edit!r}",
                f"a map with {edit}",
                f"profile with --edits {edit}",
            )
        return scores

    def block_scores(self) -> Scores:
        """`scores("drop")`, with one for every block; a map of parts alone counts a block as the
        sum of its parts.

        Raises BadInput naming the first block that has none.
        """
        scores = (
            self.scores("drop")
            if self.sensitivity is None or "drop" in self.sensitivity.edits
            else self._sums()
        )
        for stack in self.teacher.stacks:
            missing = [b for b in range(stack.depth) if (stack.path, b) not in scores]
            if missing:
                raise BadInput(
                    f"the map has no drop score for {stack.path} block {missing[0]}",
                    "a score for every block",
                    "profile again",
                )
        return scores

    def _sums(self) -> Scores:
        """Block -> sum of the scores of its parts: HierarchicalPrune's published table has no rows
        of whole blocks.
        """
        assert self.sensitivity is not None
        sums: Scores = {}
        for edit in (e for e in self.sensitivity.edits if e.startswith("drop:")):
            for place, score in self.scores(edit).items():
                sums[place] = sums.get(place, 0.0) + score
        return sums or self.scores("drop")

    def plan(self, stacks: Spans) -> Plan:
        """The plan of these spans, as it will be in the end."""
        return self.finish(
            Plan(teacher=self.teacher.name, family=self.teacher.family, stacks=stacks)
        )

    def excess(self, stacks: Spans) -> float:
        """How far over the budget, as a share of the teacher; 0 where it is met."""
        return self.budget.excess(self.plan(stacks), self.teacher)


def ranked(scores: Scores, path: str) -> dict[int, int]:
    """Block -> its place in the stack, 1 = most sensitive."""
    mine = sorted((b for p, b in scores if p == path), key=lambda b: (-scores[path, b], b))
    return {block: place for place, block in enumerate(mine, 1)}


def told(
    spans: list[Span], scores: Scores, path: str, kept: str, gone: str = "stands for"
) -> list[str]:
    """Why for a score-based rule: the rank and score of what is kept, the ranks of what is not."""
    place, out = ranked(scores, path), []
    for span in spans:
        first = span.last if span.init == "last" else span.first
        rest = [b for b in range(span.first, span.last + 1) if b != first]
        text = (
            f"block {first} {kept}: rank {place[first]} of {len(place)}, {scores[path, first]:.3g}"
        )
        if rest:
            text += f"; {gone} " + ", ".join(
                f"{b} (rank {place[b]}, {scores[path, b]:.3g})" for b in rest
            )
        out.append(text)
    return out
