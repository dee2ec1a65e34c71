"""Greedy: make one edit at a time, and measure again. Ours; FinerCut (arXiv 2405.18218) prunes
language models in this way.

The errors of single edits do not add up. So each round measures, on the student so far, every edit
that is possible, and makes the one with the least added error per share of the budget that it
saves. An edit joins two neighbouring blocks (init first, last or mean; gain 1 or the length), makes
a block slim or single-stream, drops a part, or, where asked for, factors a block's modulation. What
it saves beyond the budget does not count. After the first round only the `shortlist` edits that
cost least when they were last measured, and edits that are new, are measured again; 0 measures all.
The same calls give the same plan.

The error before training ignores two things that decide the error after it. Long spans train badly
(docs/log.md): `longest` limits the joins (span_lengths.py). And some starts train better than
others (benchmarks/starts.py): with `margin` 2 a span gets another init or gain than the first
block's only where that halves the error it adds.

With a number of blocks and another budget there are two walks: joins alone, down to that number,
of blocks as they are in the teacher; then, with the slim or single-stream blocks and the low-rank
modulation that follow the rule, all edits until the other budget is met too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..plans import identity
from ..plans.text_stream import TextStream
from ..records import BadInput, Progress
from . import edits
from .base import Proposal, Request, Rule, Spans, Work
from .edits import Edit
from .settings import COMMON
from .span_lengths import within_longest

SHORTLIST = 16  # edits that are measured again in each round
STEPS = 1000  # of the progress bar


def propose(request: Request) -> Work:
    """Edit after edit until the budget is met."""
    margin = request.settings.margin
    if margin is not None and not margin >= 1:
        raise BadInput(f"margin {margin}", "a factor of 1 or more", "change it, or leave it out")
    stacks: Spans = dict((request.start or identity(request.teacher)).stacks)
    student = Student(stacks, {path: [""] * len(spans) for path, spans in stacks.items()})
    if request.budget.keep is not None and not request.budget.counts_blocks_alone:
        yield from walk(joins_alone(request), student, 0, STEPS // 2)
        request.settle(request.plan(student.stacks))
        yield from walk(request, student, STEPS // 2, STEPS)
    else:
        yield from walk(request, student, 0, STEPS)
    why = {}
    for path, reasons in student.why.items():
        why[path] = [reason or "kept: every edit of it costs more" for reason in reasons]
    return Proposal(student.stacks, why)


def joins_alone(request: Request) -> Request:
    """The request down to the number of blocks, with joins alone and text streams as they are."""
    return replace(
        request,
        budget=request.budget.of_blocks_alone(),
        settings=replace(request.settings, edits=("join",)),
        text_stream=TextStream(),
        modulation_rank=None,
    )


@dataclass
class Student:
    """The student so far: its spans, and why each is as it is."""

    stacks: Spans
    why: dict[str, list[str]]

    def make(self, edit: Edit, reason: str) -> None:
        """Apply an edit and note the reason, beside former ones of the same block."""
        self.stacks = edit.apply(self.stacks)
        reasons = self.why[edit.path]
        if not edit.joins and reasons[edit.at]:
            reason = f"{reasons[edit.at]}; {reason}"
        reasons[edit.at : edit.at + edit.count] = [reason]


@dataclass
class Measured:
    """An edit with the error of the student after it. cost: added error per share of the budget
    saved.
    """

    edit: Edit
    saving: float
    error: float
    cost: float

    @property
    def rank(self) -> tuple[float, float]:
        """The least is the best; of two that cost nothing the one that saves more."""
        return self.cost, -self.saving


@dataclass
class Costs:
    """What edits cost when they were last measured, and how many were measured."""

    of_key: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def shortlist(
        self, savings: Iterable[tuple[Edit, float]], size: int
    ) -> list[tuple[Edit, float]]:
        """Edits never measured, and the `size` best of the others by what they cost then; 0: all
        of them.
        """
        fresh: list[tuple[Edit, float]] = []
        known: list[tuple[Edit, float]] = []
        for edit, saving in savings:
            group = known if edit.key in self.of_key else fresh
            group.append((edit, saving))
        known.sort(key=lambda pair: self.of_key[pair[0].key])
        return fresh + (known[:size] if size else known)

    def note(self, measured: Measured) -> None:
        """Remember what an edit costs."""
        self.of_key[measured.edit.key] = measured.cost
        self.count += 1


def walk(request: Request, student: Student, begin: int, end: int) -> Iterator[Progress]:
    """Edit the student until the budget is met. begin, end: this walk's part of the progress bar.

    Raises BadInput where no edit is left and the budget is not met.
    """
    started = time.monotonic()
    error = request.error(student.stacks)
    total = request.excess(student.stacks)
    costs = Costs()
    over = total

    def progress(message: str) -> Progress:
        metrics = {"error": error, "plans": costs.count, "seconds": time.monotonic() - started}
        done = 1 - request.excess(student.stacks) / total
        step = round(begin + (end - begin) * done)
        return Progress(step=step, total=STEPS, message=message, metrics=metrics)

    while over:
        request.settle(request.plan(student.stacks))
        savings = savings_of(request, student.stacks, over)
        if not savings:
            raise BadInput(
                f"no edit is left, and the plan is still {over:.3f} of the teacher over the budget",
                "a larger budget",
                "raise it, allow more --edits, or protect fewer blocks",
            )
        measured: list[Measured] = []
        for edit, saving in costs.shortlist(savings, shortlist_size(request)):
            measured.append(measure(request, student.stacks, edit, saving, error))
            costs.note(measured[-1])
            yield progress(f"{edit.path}: {edit.about}, error {measured[-1].error:.4g}")
        best = min(measured, key=lambda each: each.rank)
        reason = reason_of(best, error, len(savings))
        student.make(best.edit, reason)
        error = best.error
        over = request.excess(student.stacks)
        yield progress(reason)


def reason_of(best: Measured, error: float, count: int) -> str:
    """Why the best of `count` edits is made, on a student whose error was `error`."""
    reason = f"error {error:.4g} -> {best.error:.4g}, the least per saving of {count} edits"
    return reason if best.edit.joins else f"{best.edit.about}: {reason}"


def shortlist_size(request: Request) -> int:
    """How many edits are measured again in each round; 0: all."""
    size = request.settings.shortlist
    return SHORTLIST if size is None else size


def savings_of(request: Request, stacks: Spans, over: float) -> list[tuple[Edit, float]]:
    """The edits that come nearer to the budget, each with the share of the teacher it saves."""
    savings = []
    for edit in edits.possible(request, stacks):
        saving = over - request.excess(edit.apply(stacks))
        if saving > 1e-12:
            savings.append((edit, saving))
    longest = request.settings.longest
    return within_longest(request, stacks, savings, longest) if longest else savings


def measure(request: Request, stacks: Spans, edit: Edit, saving: float, error: float) -> Measured:
    """What an edit does to the error of the student, which is `error` before it."""
    after = request.error(edit.apply(stacks))
    added = after - error
    margin = request.settings.margin
    if margin and added > 0 and chose_start(request, edit):
        added *= margin
    return Measured(edit, saving, after, added / saving)


def chose_start(request: Request, edit: Edit) -> bool:
    """Whether an edit joins blocks with another start than the first block as it is, which no
    person set.
    """
    own_gain = request.settings.gain is None and edit.span.gain != 1
    other_start = edit.span.init != "first" or own_gain
    return edit.joins and request.settings.init is None and other_start


RULE = Rule(
    propose,
    title="Greedy, measured (after FinerCut)",
    paper="2405.18218",
    about="Makes one edit at a time, the one with the lowest measured error per saving, then measures "
    "again. Edits: join two blocks, make a block text-slim or single-stream, drop a part.",
    options=(*COMMON, "timestep_weight", "edits", "whole_text", "longest", "margin", "shortlist"),
    measures=True,
    timestep_weight="uniform",
    shapes_spans=True,
    meets_budgets=True,
    keep_and_budget=True,
)
