"""The predicted error of a plan before training, from a sensitivity map.

The sum, over the spans of the plan, of the map's scores of what each span does to its teacher
blocks. Lower is better, in the unit of the map. The terms of a span:

    one block kept                    none
    blocks dropped (gain 1)           `drop` of each dropped block
    a pair a, a+1, init I, gain G     `merge:I:G` of block a: the score of that very edit
    n > 2 blocks, init I, gain n      `merge:I:2` of each pair of neighbours inside the span
    n > 2 blocks, init mean, gain 1   `merge:mean:1` of each pair
    single-stream                     `single` of the block that it starts as
    parts dropped, slim text          `drop:PART` of the block that it starts as, part by part
    modulation of rank K              `modulation:rank=K` of the block that it starts as

A term that the map has no row for is never replaced by another edit's: the error is then unknown,
and what is missing is named, with the command that measures it.

Scores of single edits do not add up exactly. On twelve averaged pairs of `demo` the sum is 0.09
with gain 2 (measured: 0.075) and 1.3 with gain 1 (measured: 3.7); for spans of three or four blocks
it is up to six times too low (docs/plans.md). Good for ranking plans, not a promise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from ..plugins import registry
from ..records import Init, Plan, SensitivityMap, Span
from .scores import BlockScores, block_scores
from .weighting import Weighting

RANK_EDIT = "modulation:rank="  # the edit's name, before the rank


@dataclass(frozen=True)
class Term:
    """One score that the error of a plan is summed from: an edit of a teacher block.

    measurable: whether `workbench profile --edits` takes this edit.
    """

    stack: str
    block: int
    edit: str
    measurable: bool = True


@dataclass(frozen=True)
class PredictedError:
    """The predicted error of a plan.

    value: in the map's unit, lower is better; None where the map does not know all terms.
    unknown: the terms that it has no row for. edits: all edits that the plan makes, by name.
    """

    value: float | None
    teacher: str
    edits: tuple[str, ...] = ()
    unknown: tuple[Term, ...] = ()

    @property
    def unknown_edits(self) -> list[str]:
        """The edits that the map lacks for some block, each named once."""
        return list(dict.fromkeys(term.edit for term in self.unknown))

    @property
    def command(self) -> str:
        """The command that measures a map for this plan; empty where no profile can."""
        if not self.unknown or not all(term.measurable for term in self.unknown):
            return ""
        command = f"workbench profile {self.teacher} --edits {','.join(self.edits)}"
        if all(edit.startswith(RANK_EDIT) for edit in self.edits):
            command += " --metric prediction"  # else another metric measures these
        return command

    def __str__(self) -> str:
        """The error for people: a number, or what is unknown and how to measure it."""
        if self.value is not None:
            return f"{self.value:.2g}"
        edits = ", ".join(self.unknown_edits)
        if not self.command:
            return f"unknown: no map has scores of {edits}"
        return f"unknown: the map has no scores of {edits}; measure them with `{self.command}`"

    def unknown_json(self) -> dict[str, object] | None:
        """The key `predicted_error_unknown` of the command line; None where nothing is unknown."""
        if not self.unknown:
            return None
        blocks = [
            {"stack": term.stack, "block": term.block, "edit": term.edit} for term in self.unknown
        ]
        return {"edits": self.unknown_edits, "blocks": blocks, "command": self.command or None}


def predicted_error(
    plan: Plan, sensitivity: SensitivityMap, weighting: Weighting = "uniform"
) -> PredictedError:
    """The predicted error of a plan before training, lower is better; see the module's docstring.

    weighting: how the map's scores are averaged over timesteps; `uniform` has the map's unit.
    """
    terms = plan_terms(plan)
    scores = known_scores(sensitivity, weighting)
    total = 0.0
    unknown = []
    for term in terms:
        score = scores.get(term.edit, {}).get((term.stack, term.block))
        if score is None:
            unknown.append(term)
        else:
            total += score
    edits = tuple(dict.fromkeys(term.edit for term in terms if term.measurable))
    return PredictedError(None if unknown else total, plan.teacher, edits, tuple(unknown))


def known_scores(sensitivity: SensitivityMap, weighting: Weighting) -> dict[str, BlockScores]:
    """Edit, under the name that `plan_terms` uses -> its block scores."""
    metrics = registry("metric")
    if sensitivity.metric in metrics and not metrics[sensitivity.metric].is_error:
        return {}  # scores that rank blocks alone
    return {
        canonical(edit): block_scores(sensitivity, edit, weighting) for edit in sensitivity.edits
    }


def plan_terms(plan: Plan) -> list[Term]:
    """The scores that the error of a plan is summed from."""
    terms: list[Term] = []
    for path, spans in plan.stacks.items():
        for span in spans:
            terms += depth_terms(path, span)
            terms += [Term(path, span.source[0], f"drop:{part}") for part in span.drop]
            if span.stream == "single":
                terms.append(Term(path, span.source[0], "single"))
            if span.rank:
                terms.append(Term(path, span.source[0], f"{RANK_EDIT}{span.rank}"))
    return terms


def depth_terms(path: str, span: Span) -> Iterable[Term]:
    """What a span does to the depth of its stack: blocks dropped, merged, or scaled."""
    blocks = range(span.first, span.last + 1)
    if span.gain == 1 and span.init != "mean":
        return [Term(path, block, "drop") for block in blocks if block not in span.source]
    if len(span) == 1:
        if span.gain == 1:
            return []
        return [Term(path, span.first, f"gain {span.gain:g} of one block", measurable=False)]
    if len(span) == 2:
        return [Term(path, span.first, merge_name(span.init, span.gain))]
    if span.gain not in (1, len(span)):
        edit = f"merge:{span.init}:{span.gain:g} of {len(span)} blocks"
        return [Term(path, span.first, edit, measurable=False)]
    gain = 1.0 if span.gain == 1 else 2.0
    return [Term(path, block, merge_name(pair_init(span, block), gain)) for block in blocks[:-1]]


def pair_init(span: Span, block: int) -> Init:
    """The init of the pair (block, block + 1) that stands for a part of a longer span: the block
    nearer to the span's source takes the place of the other.
    """
    if span.init == "middle":
        return "last" if block < span.source[0] else "first"
    return span.init


def merge_name(init: Init, gain: float) -> str:
    """The shortest name of a merge of two neighbours: merge, merge:first, merge:mean:1."""
    if init == "middle":  # of two blocks the middle one is the first
        init = "first"
    if gain != 2:
        return f"merge:{init}:{gain:g}"
    return "merge" if init == "mean" else f"merge:{init}"


def canonical(edit: str) -> str:
    """The name that `merge_name` gives to an edit of a map; other edits keep theirs."""
    kind, _, rest = edit.partition(":")
    if kind != "merge":
        return edit
    init, _, gain = rest.partition(":")
    return merge_name(cast(Init, init or "mean"), float(gain or 2))
