"""The interface of rules: a `Rule` of the table turns a `Request` into a `Proposal`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

from ..plans import block_scores
from ..plans.modulation import with_modulation
from ..plans.scores import BlockScores
from ..plans.text_stream import TextStream
from ..plans.weighting import Weighting
from ..records import BadInput, Init, Plan, Progress, SensitivityMap, Span, StackInfo, Teacher
from .budget import Budget
from .settings import COMMON, Settings

Spans = dict[str, list[Span]]  # stack -> its spans


@dataclass
class Proposal:
    """Spans per stack, and for each span in a few words why; `why` may be empty."""

    stacks: Spans
    why: dict[str, list[str]] = field(default_factory=dict)


Work = Generator[Progress, None, Proposal]  # a rule that takes its time says how far it is


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules: a published pruning rule, or one of ours.

    paper: arXiv id or URL; empty where ours. about: one sentence for forms and docs. init: how a
    span of several blocks starts unless a person says otherwise. options: names of the settings it
    takes (fields of PlanSpec). metric: of the map it reads; None: it reads none. only_metric: it
    reads maps of that metric alone, else any map with `drop` rows. timestep_weight: how timesteps
    count by default. measures: it runs the teacher while it decides: a job, not a click.
    """

    propose: Callable[[Request], Proposal | Work]
    title: str
    about: str
    paper: str = ""
    init: Init = "first"
    options: tuple[str, ...] = COMMON
    metric: str | None = None
    only_metric: bool = False
    timestep_weight: str = "normalised"
    measures: bool = False
    # It gives each span its init and gain itself; else `init` and the person's gain are set on it.
    shapes_spans: bool = False
    # It goes to any budget by steps of its own; else the depth that meets a budget is searched for.
    meets_budgets: bool = False
    # It takes a number of blocks and another budget together.
    keep_and_budget: bool = False
    # It improves a plan: a file, or what another rule proposes.
    improves: bool = False
    # Student blocks from this share of the depth on are single-stream by default.
    single_from: float | None = None

    @property
    def needs_map(self) -> bool:
        """Whether it reads a sensitivity map."""
        return self.metric is not None

    @property
    def link(self) -> str:
        """Where the paper is; empty where the rule is ours."""
        if not self.paper or "://" in self.paper:
            return self.paper
        return f"https://arxiv.org/abs/{self.paper}"


def nothing(plan: Plan) -> None:
    """What `settle` does where no states are kept."""


@dataclass(frozen=True)
class Request:
    """The input of a rule.

    keep: student blocks per stack (rules that meet budgets look at `budget` instead). protect:
    stack -> blocks that stay alone, pinned ones included. measure(plan): the error of a student
    before training, lower is better; settle(plan) says that the next plans will be like this one.
    start: the plan to go on from. text_stream: what follows the rule in deep blocks.
    smallest_rank(): the rank that `auto` stands for; only where the teacher's weights are at hand.
    modulation_rank: of the modulation of every block that is not protected; None: in full.
    edit_rank: the same, where it is an edit that a measuring rule may make of single blocks.
    """

    teacher: Teacher
    keep: Mapping[str, int] = field(default_factory=dict)
    sensitivity: SensitivityMap | None = None
    timestep_weight: Weighting = "normalised"
    protect: Mapping[str, frozenset[int]] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    settings: Settings = field(default_factory=Settings)
    measure: Callable[[Plan], float] | None = None
    settle: Callable[[Plan], None] = nothing
    start: Plan | None = None
    smallest_rank: Callable[[], int] | None = None
    text_stream: TextStream = field(default_factory=TextStream)
    modulation_rank: int | None = None
    edit_rank: int | None = None

    def fixed(self, stack: StackInfo) -> set[int]:
        """Blocks that must begin a span: block 0, and each protected block with its follower.

        Raises BadInput where these are more than the blocks to keep.
        """
        fixed = self.walls(stack)
        keep = self.keep.get(stack.path, stack.depth)
        if len(fixed) > keep:
            count = len(self.protect.get(stack.path, ()))
            raise BadInput(
                f"{len(fixed)} spans are needed to protect {count} blocks of {stack.path}",
                f"at most {keep}",
                "protect fewer blocks or keep more",
            )
        return fixed

    def walls(self, stack: StackInfo) -> set[int]:
        """Where a span must begin whatever the budget, so that protected blocks stay alone."""
        walls = {0}
        for block in self.protect.get(stack.path, ()):
            walls |= {block, block + 1}
        return {block for block in walls if block < stack.depth}

    def scores(self, edit: str = "drop") -> BlockScores:
        """(stack, block) -> sensitivity, higher = keep. Raises BadInput where there are none."""
        if self.sensitivity is None:
            raise BadInput(
                "no sensitivity map",
                "a map of this teacher",
                "run `workbench profile` and pass --sensitivity map.json",
            )
        scores = block_scores(self.sensitivity, edit, self.timestep_weight)
        if not scores:
            raise BadInput(
                f"a map without rows of edit {edit!r}",
                f"a map with {edit}",
                f"profile with --edits {edit}",
            )
        return scores

    def block_scores(self) -> BlockScores:
        """The sensitivity of every block to being dropped. A map of parts alone counts a block as
        the sum of its parts. Raises BadInput naming the first block that has no score.
        """
        if self.sensitivity is None or "drop" in self.sensitivity.edits:
            scores = self.scores("drop")
        else:
            scores = self._sums_of_parts(self.sensitivity)
        for stack in self.teacher.stacks:
            for block in range(stack.depth):
                if (stack.path, block) not in scores:
                    raise BadInput(
                        f"a map without a drop score for {stack.path} block {block}",
                        "a score for every block",
                        "profile again",
                    )
        return scores

    def _sums_of_parts(self, sensitivity: SensitivityMap) -> BlockScores:
        """Block -> sum of the scores of its parts: HierarchicalPrune's published table has no rows
        of whole blocks.
        """
        sums: BlockScores = {}
        for edit in part_edits(sensitivity):
            for place, score in self.scores(edit).items():
                sums[place] = sums.get(place, 0.0) + score
        return sums or self.scores("drop")

    def error(self, stacks: Spans) -> float:
        """The measured error of the student of these spans, lower is better. Only for rules that
        measure.
        """
        assert self.measure is not None
        return self.measure(self.plan(stacks))

    def plan(self, stacks: Spans) -> Plan:
        """The plan of these spans, with what follows the rule: smaller text streams in deep blocks,
        and modulation of low rank.
        """
        plan = Plan(teacher=self.teacher.name, family=self.teacher.family, stacks=stacks)
        plan = self.text_stream.apply(plan, self.teacher, self.protect)
        if self.modulation_rank is None:
            return plan
        return with_modulation(plan, self.teacher, self.modulation_rank, self.protect)

    def excess(self, stacks: Spans) -> float:
        """How far over the budget, as a share of the teacher; 0 where it is met."""
        return self.budget.excess(self.plan(stacks), self.teacher)


def part_edits(sensitivity: SensitivityMap) -> list[str]:
    """The map's edits that drop parts of blocks."""
    return [edit for edit in sensitivity.edits if edit.startswith("drop:")]


def ranks(scores: BlockScores, path: str) -> dict[int, int]:
    """Block -> its place in the stack, 1 = most sensitive; of equal scores the earlier block."""
    blocks = [block for stack, block in scores if stack == path]
    blocks.sort(key=lambda block: (-scores[path, block], block))
    return {block: place for place, block in enumerate(blocks, 1)}


def score_reasons(spans: list[Span], scores: BlockScores, path: str, kept: str) -> list[str]:
    """Why, for a rule by scores: rank and score of the block that is kept and of those that go."""
    place = ranks(scores, path)
    reasons = []
    for span in spans:
        source = span.last if span.init == "last" else span.first
        reason = (
            f"block {source} {kept}: rank {place[source]} of {len(place)}, "
            f"{scores[path, source]:.3g}"
        )
        dropped = [
            f"{block} (rank {place[block]}, {scores[path, block]:.3g})"
            for block in range(span.first, span.last + 1)
            if block != source
        ]
        if dropped:
            reason += "; stands for " + ", ".join(dropped)
        reasons.append(reason)
    return reasons
