"""Rules propose plans. Each published rule is one file that opens with its paper, and one row of RULES.

A rule is a function from a Request (teacher, maps, budget, options) to spans per stack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import plans
from ..records import BadInput, Init, Plan, SensitivityMap, Span, StackInfo, Teacher
from . import amber, uniform
from .options import OPTIONS, Option

__all__ = ["OPTIONS", "RULES", "Option", "Request", "Rule", "Spans", "check_map", "keep_for_ratio", "propose", "shape"]

Spans = dict[str, list[Span]]


@dataclass(frozen=True)
class Rule:
    propose: Callable[[Request], Spans]
    title: str
    paper: str  # arXiv id or URL, empty where ours
    needs_map: bool
    init: Init  # what the rule does with a span unless told otherwise
    about: str
    options: tuple[str, ...] = ("init", "gain", "protect")  # names in OPTIONS: what a person may set
    measures: bool = False  # runs the teacher while it decides: a job, not a click
    metric: str | None = None  # of the map it reads; None: it reads none

    @property
    def link(self) -> str:
        """Where the paper is; empty where the rule is ours."""
        return self.paper if not self.paper or "://" in self.paper else f"https://arxiv.org/abs/{self.paper}"


@dataclass(frozen=True)
class Request:
    """What a rule works from. `keep` counts student blocks per stack; `protect` lists blocks that stay alone."""

    teacher: Teacher
    keep: Mapping[str, int]
    sensitivity: SensitivityMap | None = None
    weighting: str | Mapping[float, float] = "normalised"
    protect: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def fixed(self, stack: StackInfo) -> set[int]:
        """Blocks that must begin a span: block 0, and each protected block with its follower, so that it stays alone."""
        protect = self.protect.get(stack.path, frozenset())
        fixed = {0} | {b for p in protect for b in (p, p + 1) if b < stack.depth}
        keep = self.keep.get(stack.path, stack.depth)
        if len(fixed) > keep:
            raise BadInput(f"{len(fixed)} spans are needed to protect {len(protect)} blocks of {stack.path}",
                           f"at most {keep}", "protect fewer blocks or keep more")
        return fixed

    def scores(self, edit: str = "drop") -> dict[tuple[str, int], float]:
        """(stack, block) -> sensitivity, higher = keep."""
        if self.sensitivity is None:
            raise BadInput("no sensitivity map", "a map of this teacher", "run `workbench profile` and pass --sensitivity map.json")
        scores = plans.block_scores(self.sensitivity, edit, self.weighting)
        if not scores:
            raise BadInput(f"the map has no rows of edit {edit!r}", f"a map with {edit}", f"profile with --edits {edit}")
        return scores


RULES: dict[str, Rule] = {
    "uniform": Rule(uniform.propose, "Even spans", "", False, "first",
                    "Cuts every stack into spans of equal length; each student block starts as the first of its span."),
    "amber": Rule(amber.propose, "Amber-Image", "2602.17047", True, "mean",
                  "Drops the blocks with the least timestep-weighted sensitivity; each kept block starts as the mean of "
                  "itself and the dropped run after it.", ("init", "gain", "protect", "weighting"), metric="prediction"),
}


def propose(rule: str, teacher: Teacher, keep: Mapping[str, int], sensitivity: SensitivityMap | None = None, *,
            weighting: str | None = None, protect: Mapping[str, frozenset[int]] | None = None, init: Init | None = None,
            gain: float | str | None = None) -> Plan:
    """The plan of a rule for a budget, checked.

    `gain` is a number, or "length": each merged span's own length. Raises BadInput where the rule, the map or the
    budget does not fit the teacher.
    """
    if rule not in RULES:
        raise BadInput(f"rule {rule!r} is unknown", "one of " + ", ".join(RULES), "choose one")
    row = RULES[rule]
    if row.needs_map or sensitivity is not None:
        check_map(sensitivity, teacher)
    weighting = weighting or ("high-noise" if rule == "amber" else "normalised")
    for stack in teacher.stacks:
        wanted = keep.get(stack.path, stack.depth)
        if not 1 <= wanted <= stack.depth:
            raise BadInput(f"keep {wanted} blocks of {stack.path}", f"1 to {stack.depth}", "change --keep")
    family = plans.family_of(teacher)
    alone = {s.path: frozenset((protect or {}).get(s.path, ())) | family.stack(s.path).pinned_in(s.depth) for s in teacher.stacks}
    spans = row.propose(Request(teacher, keep, sensitivity, weighting, alone))
    shaped = {path: [shape(span, init or row.init, gain) for span in items] for path, items in spans.items()}
    origin: dict[str, Any] = {"rule": rule, "keep": dict(keep), "timestep_weight": weighting}
    if sensitivity is not None:
        origin["sensitivity"] = sensitivity.digest
    return plans.check(Plan(teacher=teacher.name, family=teacher.family, origin=origin, stacks=shaped), teacher)


def shape(span: Span, init: Init, gain: float | str | None) -> Span:
    """Give a span of several blocks its init and gain; single blocks stay as they are."""
    if len(span) == 1:
        return span
    factor = 1.0 if gain is None else float(len(span)) if gain == "length" else float(gain)
    keeps_last = span.init == "last" and init == "first"  # a run dropped before the first kept block
    return span.model_copy(update={"init": "last" if keeps_last else init, "gain": factor})


def check_map(sensitivity: SensitivityMap | None, teacher: Teacher) -> None:
    """Refuse a map of another teacher, by name and fingerprint."""
    if sensitivity is None:
        raise BadInput("no sensitivity map", f"a map of {teacher.name}", "run `workbench profile` and pass --sensitivity map.json")
    other = sensitivity.fingerprint and teacher.fingerprint and sensitivity.fingerprint != teacher.fingerprint
    if sensitivity.family != teacher.family or other:
        raise BadInput(f"the map was measured on {sensitivity.teacher} ({sensitivity.fingerprint or sensitivity.family})",
                       f"a map of {teacher.name} ({teacher.fingerprint or teacher.family})", "profile this teacher")


def keep_for_ratio(teacher: Teacher, ratio: float) -> dict[str, int]:
    """Blocks per stack so that the student has at most `ratio` of the teacher's parameters; stacks shrink alike."""
    if not 0 < ratio <= 1:
        raise BadInput(f"budget params={ratio}", "a share between 0 and 1", "change --budget")
    for cut in range(1000, -1, -1):
        keep = {s.path: max(1, round(s.depth * cut / 1000)) for s in teacher.stacks}
        if teacher.outside + sum(_largest(s, keep[s.path]) for s in teacher.stacks) <= ratio * teacher.parameters:
            return keep
    least = teacher.outside + sum(_largest(s, 1) for s in teacher.stacks)
    raise BadInput(f"budget params={ratio}", f"at least {least / teacher.parameters:.3f}: one block a stack", "raise --budget")


def _largest(stack: StackInfo, count: int) -> int:
    """An upper bound: the `count` largest blocks of a stack."""
    return sum(sorted((stack.block_parameters(b) for b in range(stack.depth)), reverse=True)[:count])
