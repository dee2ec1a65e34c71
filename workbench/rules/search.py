"""Search: improve any plan by measured swaps, within a time or a number of plans. Ours.

A swap keeps the student as small: a boundary between two spans moves by a block; one span splits
while two others of the stack join; a span gets another init or gain; two blocks exchange their
stream or their dropped parts. Swaps are drawn at random from a fixed seed; one that lowers the
measured error is kept. With a number of plans the answer is the same every time; with minutes it
depends on the machine.

The error that `measure` returns is what is minimised: the error before training here. A rule that
measures after a short recovery is this one with another `measure` (TinyFusion's point, arXiv
2412.01199: the error before training does not predict what training recovers).
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from ..plans import check, difference, identity
from ..records import BadInput, Progress
from .base import Proposal, Request, Rule, Spans, Work
from .settings import COMMON
from .swaps import swap

TRIES = 200  # plans, where neither a time nor a number is given
IDLE_DRAWS = 2000  # draws without a new plan after which nothing is left to try
STEPS = 1000  # of the progress bar


@dataclass
class Limits:
    """When the search ends: after so many plans or minutes, or when draws bring nothing new."""

    tries: int | None
    minutes: float | None
    tried: int = 0
    idle: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> float:
        """The share of the search that is over, from 0 to 1."""
        shares = [self.idle / IDLE_DRAWS]
        if self.tries:
            shares.append(self.tried / self.tries)
        if self.minutes:
            shares.append((time.monotonic() - self.began) / 60 / self.minutes)
        return min(max(shares), 1.0)


def propose(request: Request) -> Work:
    """Swap and measure until the limits are reached. Raises BadInput where the plan to improve is
    over the budget.
    """
    start = request.start or identity(request.teacher)
    stacks: Spans = dict(start.stacks)
    over = request.excess(stacks)
    if over:
        raise BadInput(
            f"the plan to improve is over the budget by {over:.3f} of the teacher",
            "one that meets it",
            "start with another",
        )
    assert request.measure is not None
    first_error = error = request.measure(start)
    limits = limits_of(request)
    random_source = random.Random(0)
    seen: set[str] = set()
    request.settle(start)
    while limits.done < 1:
        candidate = swap(request, stacks, random_source)
        key = str(candidate)
        if candidate is None or key in seen or not acceptable(request, candidate):
            limits.idle += 1
            continue
        seen.add(key)
        limits.tried += 1
        limits.idle = 0
        new_error = request.error(candidate)
        message = f"{limits.tried} plans tried, error {first_error:.4g} -> {error:.4g}"
        if new_error < error:
            words = "; ".join(difference(request.plan(stacks), request.plan(candidate)))
            message = f"{words}: error {error:.4g} -> {new_error:.4g}"
            stacks = candidate
            error = new_error
            request.settle(request.plan(stacks))
        metrics = {"error": error, "plans": limits.tried}
        step = round(STEPS * limits.done)
        yield Progress(step=step, total=STEPS, message=message, metrics=metrics)
    words = f"{limits.tried} plans tried, error {first_error:.4g} -> {error:.4g}"
    return Proposal(stacks, reasons(dict(start.stacks), stacks, words))


def limits_of(request: Request) -> Limits:
    """The limits that a person set, else a number of plans."""
    settings = request.settings
    if settings.tries is None and settings.minutes is None:
        return Limits(TRIES, None)
    return Limits(settings.tries, settings.minutes)


def reasons(before: Spans, after: Spans, words: str) -> dict[str, list[str]]:
    """Whether each span was there before the search."""
    out = {}
    for path, spans in after.items():
        out[path] = [
            f"as it was; {words}" if span in before[path] else f"swapped in; {words}"
            for span in spans
        ]
    return out


def acceptable(request: Request, stacks: Spans) -> bool:
    """Whether a plan meets the budget, is sound, and leaves protected blocks alone."""
    if request.excess(stacks):
        return False
    try:
        check(request.plan(stacks), request.teacher)
    except BadInput:
        return False
    for stack in request.teacher.stacks:
        if not request.walls(stack) <= {span.first for span in stacks[stack.path]}:
            return False
    return True


RULE = Rule(
    propose,
    title="Search, measured",
    about="Improves another rule's plan, or your own, by random swaps whose error it measures.",
    options=(*COMMON, "timestep_weight", "start", "minutes", "tries"),
    measures=True,
    timestep_weight="uniform",
    shapes_spans=True,
    meets_budgets=True,
    improves=True,
)
