"""Running a rule: from its name, a teacher and a size to a checked plan."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..plans import check, family_of
from ..plans.gains import Gain, gain_for
from ..records import BadInput, Init, Plan, Progress, SensitivityMap, Span, Teacher
from .base import Proposal, Request, Rule, Spans, nothing
from .budget import Budget
from .maps import check_map
from .settings import Settings
from .table import RULES

EDIT_RANK = 8  # of the edit `modulation`, where no rank is said


@dataclass(frozen=True)
class Proposed:
    """What a rule proposed: the plan, checked, and per stack one reason for every span."""

    plan: Plan
    why: dict[str, list[str]]


def propose(
    rule: str,
    teacher: Teacher,
    keep: Mapping[str, int] | None = None,
    sensitivity: SensitivityMap | None = None,
    **given: Any,
) -> Plan:
    """The plan of a rule for a budget, checked; the arguments are those of `proposing`."""
    *_, last = proposing(rule, teacher, keep, sensitivity, **given)
    plan: Plan = last.result.plan
    return plan


def proposing(
    rule: str,
    teacher: Teacher,
    keep: Mapping[str, int] | None = None,
    sensitivity: SensitivityMap | None = None,
    *,
    budget: Budget | None = None,
    start: Plan | None = None,
    measure: Callable[[Plan], float] | None = None,
    settle: Callable[[Plan], None] = nothing,
    smallest_rank: Callable[[], int] | None = None,
    **settings: Any,
) -> Iterator[Progress]:
    """Let a rule decide; the last Progress carries a Proposed.

    keep: student blocks per stack. budget: other limits, of parameters, bytes or time; one of the
    two at least. start: the plan to go on from, for rules that improve one. measure(plan): the
    error of a student before training, lower is better, for rules that measure; settle(plan) says
    that the next plans will be like this one. smallest_rank(): the rank that modulation_rank auto
    stands for. settings: those of rules.Settings.

    Raises BadInput where the rule, a setting, the map or the budget does not fit the teacher.
    """
    row = RULES[rule]
    request = Request(
        teacher,
        sensitivity=sensitivity,
        budget=budget_of(keep, budget),
        settings=Settings.parse(settings),
        measure=measure,
        settle=settle,
        start=start,
        smallest_rank=smallest_rank,
    )
    request = completed(request, row)
    check_request(request, row, rule)
    if row.meets_budgets or request.budget.counts_blocks_alone:
        proposal = yield from decided(row, request)
    else:
        proposal = deepest(row, request)
    stacks = proposal.stacks
    if not row.shapes_spans:
        init = request.settings.init or row.init
        stacks = shaped(stacks, init, request.settings.gain)
    plan = request.plan(stacks).model_copy(update={"origin": origin_of(rule, request)})
    result = Proposed(check(plan, teacher), proposal.why)
    yield Progress(step=1, total=1, message="done", result=result)


def budget_of(keep: Mapping[str, int] | None, budget: Budget | None) -> Budget:
    """One budget of blocks to keep and of other limits."""
    limits = budget or Budget()
    return limits if keep is None else replace(limits, keep=dict(keep))


def completed(request: Request, row: Rule) -> Request:
    """The request with what the rule does by default, and the family's pinned blocks protected."""
    settings = request.settings
    if settings.single_from is None:
        settings = replace(settings, single_from=row.single_from)
    family = family_of(request.teacher)
    protect = {}
    for stack in request.teacher.stacks:
        pinned = family.stack(stack.path).pinned_in(stack.depth)
        protect[stack.path] = frozenset(settings.protect.get(stack.path, ())) | pinned
    rank = chosen_rank(request)
    as_edit = "modulation" in (settings.edits or ())
    return replace(
        request,
        keep=request.budget.keep or {},
        timestep_weight=settings.timestep_weight or row.timestep_weight,
        protect=protect,
        settings=settings,
        text_stream=settings.text_stream,
        modulation_rank=None if as_edit else rank,
        edit_rank=(rank or EDIT_RANK) if as_edit else None,
    )


def check_options(rule: str, settings: Settings) -> None:
    """Refuse a setting that the rule does not take."""
    row = RULES[rule]
    taken = set(row.options)
    if row.single_from is not None:
        taken.add("single_from")
    for name in settings.given:
        if name not in taken:
            raise BadInput(
                f"option {name} for rule {rule}", "one of " + ", ".join(row.options), "leave it out"
            )


def chosen_rank(request: Request) -> int | None:
    """The rank of modulation that the settings say; None: in full. Raises BadInput for `auto`
    without the teacher's weights.
    """
    rank = request.settings.modulation_rank
    if rank != "auto":
        return rank
    if request.smallest_rank is None:
        raise BadInput(
            "modulation_rank auto without the teacher's weights",
            "a number of directions, or weights to find it by",
            "write --modulation-rank 8, or run it as `workbench plan`",
        )
    return request.smallest_rank()


def check_request(request: Request, row: Rule, rule: str) -> None:
    """Refuse a request that lacks what the rule needs or has what it does not take."""
    if row.needs_map or (request.sensitivity is not None and not row.measures):
        check_map(request.sensitivity, request.teacher, row)
    if row.measures and request.measure is None:
        raise BadInput(
            f"rule {rule} with nothing to measure by",
            "the teacher's weights",
            "run it as `workbench plan`",
        )
    check_options(rule, request.settings)
    if request.budget.empty and request.start is None:
        raise BadInput(
            f"rule {rule} without a size", "blocks to keep, or a budget", "say --keep or --budget"
        )
    for stack in request.teacher.stacks:
        keep = request.keep.get(stack.path, stack.depth)
        if not 1 <= keep <= stack.depth:
            raise BadInput(
                f"keep {keep} blocks of {stack.path}", f"1 to {stack.depth}", "change --keep"
            )


def decided(row: Rule, request: Request) -> Generator[Progress, None, Proposal]:
    """The rule's proposal; a slow rule yields its progress."""
    work = row.propose(request)
    if isinstance(work, Proposal):
        return work
    return (yield from work)


def deepest(row: Rule, request: Request) -> Proposal:
    """The proposal of most blocks that meets the budget; all stacks shrink alike.

    Raises BadInput where one block a stack is over it.
    """
    over = 0.0
    for keep in shrinking(request):
        proposal = row.propose(replace(request, keep=keep))
        assert isinstance(proposal, Proposal), "a rule that yields progress meets budgets itself"
        over = request.excess(proposal.stacks)
        if not over:
            return proposal
    raise BadInput(
        f"budget {request.budget}, {over:.3f} of the teacher over with one block a stack",
        f"at least {over:.3f} more",
        "raise --budget",
    )


def shrinking(request: Request) -> Iterator[dict[str, int]]:
    """Blocks to keep per stack, from all of them down to one each, in even shares."""
    most = request.budget.keep or {}
    previous: dict[str, int] = {}
    for share in range(1000, -1, -1):
        keep = {}
        for stack in request.teacher.stacks:
            count = max(1, round(stack.depth * share / 1000))
            keep[stack.path] = min(count, most.get(stack.path, stack.depth))
        if keep != previous:
            yield keep
        previous = keep


def shaped(stacks: Spans, init: Init, gain: Gain | None) -> Spans:
    """Spans of several blocks with an init and a gain; single blocks stay as they are."""
    out = {}
    for path, spans in stacks.items():
        out[path] = [shaped_span(span, init, gain) for span in spans]
    return out


def shaped_span(span: Span, init: Init, gain: Gain | None) -> Span:
    """A span with an init and a gain, if it has several blocks."""
    if len(span) == 1:
        return span
    if span.init == "last" and init == "first":  # a run dropped before the first kept block
        init = "last"
    factor = 1.0 if gain is None else gain_for(gain, len(span))
    return span.model_copy(update={"init": init, "gain": factor})


def origin_of(rule: str, request: Request) -> dict[str, Any]:
    """Where the plan comes from: everything that decided it."""
    origin: dict[str, Any] = {"rule": rule}
    if request.budget.keep is not None:
        origin["keep"] = dict(request.budget.keep)
    limits = str(request.budget)
    if limits:
        origin["budget"] = limits
    row = RULES[rule]
    if row.needs_map or row.measures:
        origin["timestep_weight"] = request.timestep_weight
    for name, value in request.settings.given.items():
        if name == "edits":
            origin[name] = ",".join(value)
        elif name == "modulation_rank":
            origin[name] = request.modulation_rank or request.edit_rank
        elif name not in ("protect", "timestep_weight"):
            origin[name] = value
    if request.start is not None:
        origin["start"] = request.start.digest
    if request.sensitivity is not None:
        origin["sensitivity"] = request.sensitivity.digest
    return origin
