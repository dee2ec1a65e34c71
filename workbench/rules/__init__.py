"""Rules propose plans. Each published rule is one file that opens with its paper, and one row of
RULES.

A rule is a function from a Request (teacher, map, budget, options) to spans per stack, each with
the reason why.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from .. import plans
from ..plans.text_stream import TextStream
from ..records import BadInput, Init, Plan, Progress, SensitivityMap, Span, Teacher
from . import amber, greedy, hierarchical, influence, ppcl, recoverable, search, uniform
from .base import Proposal, Request, Rule, Spans, nothing
from .budget import Budget
from .options import OPTIONS, Option

__all__ = [
    "OPTIONS",
    "OWN_METRIC",
    "RULES",
    "Budget",
    "Option",
    "Proposed",
    "Request",
    "Rule",
    "Spans",
    "check_map",
    "check_shape",
    "propose",
    "proposing",
    "shape",
]

# a rule of one of these reads no other; the rest read any map with `drop` rows
OWN_METRIC = ("influence", "cka", "recovery")
COMMON = ("init", "gain", "protect", "single_from", "slim_from")
RULES: dict[str, Rule] = {
    "uniform": Rule(
        uniform.propose,
        "Even spans",
        "",
        False,
        "first",
        "Cuts every stack into spans of equal length; each student block starts as "
        "the first of its span.",
    ),
    "influence": Rule(
        influence.propose,
        "Block influence (ShortGPT, FLUX.1-lite)",
        "2403.03853",
        True,
        "first",
        "Drops the blocks whose output is most like their input; the others keep their weights.",
        (*COMMON, "weighting"),
        metric="influence",
        weighting="uniform",
    ),
    "amber": Rule(
        amber.propose,
        "Amber-Image",
        "2602.17047",
        True,
        "mean",
        "Drops the blocks with the least timestep-weighted sensitivity; each kept block "
        "starts as the mean of "
        "itself and the dropped run after "
        "it.",
        (*COMMON, "weighting"),
        metric="prediction",
        weighting="high-noise",
    ),
    "amber-hybrid": Rule(
        amber.propose,
        "Amber-Image, hybrid streams",
        "2602.17047",
        True,
        "mean",
        "As Amber-Image; then the deep blocks carry text and image with the "
        "image branch's weights, at half the size. "
        "A fifth of the student's blocks stays dual-stream unless told otherwise.",
        (*COMMON, "weighting"),
        metric="prediction",
        weighting="high-noise",
    ),
    "hierarchical": Rule(
        hierarchical.propose,
        "HierarchicalPrune",
        "2508.04663",
        True,
        "first",
        "Drops what contributes least, early blocks weighing more: whole blocks "
        "first, then parts of blocks until the "
        "budget is "
        "met.",
        (*COMMON, "weighting", "parts"),
        metric="prediction",
        weighting="uniform",
        walks=True,
    ),
    "ppcl": Rule(
        ppcl.propose,
        "PPCL",
        "2511.16156",
        True,
        "middle",
        "Finds runs of blocks that linear maps could stand in for (CKA) and makes one "
        "block of each run, from its middle.",
        COMMON,
        metric="cka",
        walks=True,
    ),
    "recoverable": Rule(
        recoverable.propose,
        "Recoverable spans",
        "",
        True,
        "first",
        "Of all partitions the one whose spans a short training repairs best, by "
        "a map in which one block for each "
        "span was trained (TinyFusion's thesis, arXiv 2412.01199: error before "
        "training misleads). Spans start as they did "
        "there.",
        (*COMMON, "weighting"),
        metric="recovery",
        shapes=True,
        walks=True,
    ),
    "greedy": Rule(
        greedy.propose,
        "Greedy, measured (FinerCut's way)",
        "2405.18218",
        False,
        "first",
        "Makes one edit at a time, the one with the least measured error per saving, "
        "and measures again what is left: two "
        "blocks into one, text and image sharing weights, a part dropped.",
        (*COMMON, "weighting", "edits", "longest", "margin", "shortlist"),
        measures=True,
        weighting="uniform",
        walks=True,
    ),
    "search": Rule(
        search.propose,
        "Search, measured",
        "",
        False,
        "first",
        "Improves another rule's plan, or your own, by measured swaps until the time is over.",
        (*COMMON, "weighting", "start", "minutes", "tries"),
        measures=True,
        weighting="uniform",
        walks=True,
    ),
}


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
    **options: Any,
) -> Plan:
    """The plan of a rule for a budget, checked; `options` are those of `proposing`."""
    *_, last = proposing(rule, teacher, keep, sensitivity, **options)
    plan: Plan = last.result.plan
    return plan


def proposing(
    rule: str,
    teacher: Teacher,
    keep: Mapping[str, int] | None = None,
    sensitivity: SensitivityMap | None = None,
    *,
    budget: Budget | None = None,
    weighting: str | None = None,
    protect: Mapping[str, frozenset[int]] | None = None,
    init: Init | None = None,
    gain: float | str | None = None,
    single_from: float | None = None,
    slim_from: float | None = None,
    measure: Callable[[Plan], float] | None = None,
    settle: Callable[[Plan], None] = nothing,
    start: Plan | None = None,
    **options: Any,
) -> Iterator[Progress]:
    """Work a rule out; the last Progress carries a Proposed.

    `keep` counts student blocks per stack, `budget` limits parameters, bytes or time; one of them
    at least. `gain` is a number, or "length": each merged span's own length. `single_from`: student
    blocks from this number on (below 1: from this share of the depth on) are single-stream;
    `slim_from`: they only read the text (see deep). `measure(plan)` is the error of a student
    before training, for the rules that measure; `settle` tells its owner which plan the next ones
    will be like. `options` are further names of OPTIONS. Raises BadInput where the rule, the map or
    the budget does not fit the teacher.
    """
    given = {name: value for name, value in options.items() if value is not None}
    row = _row(rule, teacher, sensitivity, measure, given)
    budget = (
        replace(budget or Budget(), keep=dict(keep)) if keep is not None else budget or Budget()
    )
    if budget.empty and start is None:
        raise BadInput(
            f"rule {rule} without a size", "blocks to keep, or a budget", "say --keep or --budget"
        )
    check_shape(init, gain)
    for stack in teacher.stacks:
        wanted = (budget.keep or {}).get(stack.path, stack.depth)
        if not 1 <= wanted <= stack.depth:
            raise BadInput(
                f"keep {wanted} blocks of {stack.path}", f"1 to {stack.depth}", "change --keep"
            )
    family = plans.family_of(teacher)
    alone = {
        s.path: frozenset((protect or {}).get(s.path, ())) | family.stack(s.path).pinned_in(s.depth)
        for s in teacher.stacks
    }
    single = amber.DUAL_SHARE if single_from is None and rule == "amber-hybrid" else single_from
    deep = {"single_from": single, "slim_from": slim_from}
    request = Request(
        teacher,
        budget.keep or {},
        sensitivity,
        weighting or row.weighting,
        alone,
        budget,
        init,
        gain,
        given,
        measure,
        settle,
        start,
        lambda plan: TextStream(**deep).apply(plan, teacher, alone),
    )
    if row.walks or budget == Budget(keep=budget.keep, tokens=budget.tokens):
        work = row.propose(request)
        proposal = (yield from work) if isinstance(work, Generator) else work
    else:
        proposal = _deepest(row, request)
    spans = (
        proposal.stacks
        if row.measures or row.shapes
        else {
            path: [shape(span, init or row.init, gain) for span in items]
            for path, items in proposal.stacks.items()
        }
    )
    plan = request.plan(spans).model_copy(update={"origin": _origin(rule, request, deep)})
    yield Progress(
        step=1, total=1, message="done", result=Proposed(plans.check(plan, teacher), proposal.why)
    )


def _row(
    rule: str,
    teacher: Teacher,
    sensitivity: SensitivityMap | None,
    measure: object,
    options: Mapping[str, Any],
) -> Rule:
    """The rule, if it is given what it needs and nothing that it cannot use."""
    if rule not in RULES:
        raise BadInput(f"rule {rule!r} is unknown", "one of " + ", ".join(RULES), "choose one")
    row = RULES[rule]
    if row.needs_map or (sensitivity is not None and not row.measures):
        check_map(sensitivity, teacher, row.metric)
    if row.measures and measure is None:
        raise BadInput(
            f"rule {rule} with nothing to measure by",
            "the teacher's weights",
            "run it as `workbench plan`",
        )
    if unknown := sorted(set(options) - set(row.options)):
        raise BadInput(
            f"option {unknown[0]} for rule {rule}",
            "one of " + ", ".join(row.options),
            "leave it out",
        )
    return row


def _origin(rule: str, request: Request, deep: Mapping[str, float | None]) -> dict[str, Any]:
    """Where the plan comes from: everything that made it."""
    budget, origin = request.budget, {"rule": rule}  # type: tuple[Budget, dict[str, Any]]
    if budget.keep is not None:
        origin["keep"] = dict(budget.keep)
    if text := budget.told():
        origin["budget"] = text
    if RULES[rule].needs_map or RULES[rule].measures:
        origin["timestep_weight"] = request.weighting
    more = {"init": request.init, "gain": request.gain, **deep, **request.options}
    origin |= {name: value for name, value in more.items() if value is not None}
    if request.start is not None:
        origin["start"] = request.start.digest
    if request.sensitivity is not None:
        origin["sensitivity"] = request.sensitivity.digest
    return origin


def _deepest(row: Rule, request: Request) -> Proposal:
    """The proposal of most blocks that meets the budget; all stacks shrink alike."""
    depths = {s.path: s.depth for s in request.teacher.stacks}
    least = (request.budget.keep or {}) if request.budget.keep else {}
    tried: list[dict[str, int]] = []
    over = 0.0
    for cut in range(1000, -1, -1):
        keep = {
            path: min(max(1, round(depth * cut / 1000)), least.get(path, depth))
            for path, depth in depths.items()
        }
        if keep in tried[-1:]:
            continue
        tried.append(keep)
        proposal = row.propose(replace(request, keep=keep))
        assert isinstance(proposal, Proposal)
        over = request.excess(proposal.stacks)
        if not over:
            return proposal
    raise BadInput(
        f"budget {request.budget.told()}, {over:.3f} of the teacher over with one block a stack",
        f"at least {over:.3f} more",
        "raise --budget",
    )


def check_shape(init: object, gain: object) -> None:
    """Refuse an init or gain that no span can have."""
    if init is not None and init not in get_args(Init):
        raise BadInput(f"init {init!r}", "one of " + ", ".join(get_args(Init)), "choose one")
    number = gain if isinstance(gain, int | float) and not isinstance(gain, bool) else _number(gain)
    if gain not in (None, "length") and not (number and 0 < number < 1e4):
        raise BadInput(f"gain {gain!r}", "a positive number, or length", "write it like --gain 2")


def _number(text: object) -> float | None:
    try:
        return float(str(text))
    except ValueError:
        return None


def shape(span: Span, init: Init, gain: float | str | None) -> Span:
    """Give a span of several blocks its init and gain; single blocks stay as they are."""
    if len(span) == 1:
        return span
    factor = 1.0 if gain is None else float(len(span)) if gain == "length" else float(gain)
    # a run dropped before the first kept block
    keeps_last = span.init == "last" and init == "first"
    return span.model_copy(update={"init": "last" if keeps_last else init, "gain": factor})


def check_map(
    sensitivity: SensitivityMap | None, teacher: Teacher, metric: str | None = None
) -> None:
    """Refuse a map of another teacher, by name and fingerprint, or of a metric the rule does not
    read.
    """
    if sensitivity is None:
        wanted = f" --metric {metric}" if metric in OWN_METRIC else ""
        raise BadInput(
            "no sensitivity map",
            f"a map of {teacher.name}",
            f"run `workbench profile{wanted}` and pass --sensitivity map.json",
        )
    other = (
        sensitivity.fingerprint
        and teacher.fingerprint
        and sensitivity.fingerprint != teacher.fingerprint
    )
    if sensitivity.family != teacher.family or other:
        raise BadInput(
            f"the map was measured on {sensitivity.teacher} "
            f"({sensitivity.fingerprint or sensitivity.family})",
            f"a map of {teacher.name} ({teacher.fingerprint or teacher.family})",
            "profile this teacher",
        )
    if metric in OWN_METRIC and sensitivity.metric != metric:
        raise BadInput(
            f"a map of metric {sensitivity.metric}",
            f"metric {metric}",
            f"run `workbench profile --metric {metric}`",
        )
