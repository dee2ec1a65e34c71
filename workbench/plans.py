"""Plans: are they sound, and what do they cost? Pure arithmetic over the teacher's tensor layouts, no weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from .families import FAMILIES, Family, StackRow, inside
from .records import BadInput, Init, Plan, SensitivityMap, Span, StackInfo, Teacher, numel

BYTES = {"bf16": 2.0, "int8": 1.0, "int4": 0.5}  # per parameter, scales and zero points not counted


def family_of(teacher: Teacher) -> Family:
    try:
        return FAMILIES[teacher.family]
    except KeyError:
        raise BadInput(f"family {teacher.family!r} is unknown", "one of " + ", ".join(FAMILIES), "use a known family") from None


def identity(teacher: Teacher) -> Plan:
    """The plan that keeps every block."""
    stacks = {s.path: [Span(blocks=(b, b)) for b in range(s.depth)] for s in teacher.stacks}
    return Plan(teacher=teacher.name, family=teacher.family, origin={"rule": "identity"}, stacks=stacks)


def spans_of(depth: int, starts: Iterable[int]) -> list[Span]:
    """Contiguous spans that begin at the given blocks; the first must be 0."""
    cuts = [*sorted(set(starts)), depth]
    return [Span(blocks=(a, b - 1)) for a, b in pairwise(cuts)]


def spans_of_kept(depth: int, kept: Iterable[int], path: str = "the stack") -> list[Span]:
    """One span per kept block: itself and the dropped run after it, init first.

    A run before the first kept block joins it with init last, and so does each run up to the next kept block that has
    no run of its own behind it. Raises BadInput where no partition says it (one kept block, dropped runs on both sides).
    """
    order = sorted(set(kept))
    if not order:
        raise BadInput(f"no block of {path} is kept", "at least one kept block", "keep a block")
    if order[0] == 0:
        return spans_of(depth, order)
    spans, due = [], 0
    for at, block in enumerate(order):
        end = order[at + 1] if at + 1 < len(order) else depth
        if end == block + 1:  # nothing dropped behind it: the backward joins end here
            spans.append(Span(blocks=(due, block), init="last" if due < block else "first"))
            return spans + [s.model_copy(update={"blocks": (s.first + end, s.last + end)})
                            for s in (spans_of(depth - end, [b - end for b in order[at + 1:]]) if end < depth else [])]
        spans.append(Span(blocks=(due, block), init="last" if due < block else "first"))
        due = block + 1
    raise BadInput(f"{path}: blocks are dropped before block {order[0]} and behind {order[-1]}, with none kept in a row between",
                   "a contiguous span for every kept block", "keep block 0 or the last block")


def from_marks(teacher: Teacher, marks: Mapping[str, Mapping[int, str]], **origin: Any) -> Plan:
    """A plan from a person's clicks: stack -> block -> keep | drop | merge.

    A `drop` block vanishes into the span of a kept neighbour (see spans_of_kept). Where a run after a kept block has a
    `merge` in it, the whole run is averaged into that block, with gain = span length.
    """
    stacks = {s.path: _mark_spans(s.depth, marks.get(s.path, {}), s.path) for s in teacher.stacks}
    return Plan(teacher=teacher.name, family=teacher.family, origin={"rule": "by hand", **origin}, stacks=stacks)


def _mark_spans(depth: int, marks: Mapping[int, str], path: str) -> list[Span]:
    spans = spans_of_kept(depth, [b for b in range(depth) if marks.get(b, "keep") == "keep"], path)
    return [
        span.model_copy(update={"init": "mean", "gain": float(len(span))})
        if any(marks.get(b) == "merge" for b in range(span.first, span.last + 1)) else span
        for span in spans
    ]


# --- soundness -----------------------------------------------------------------------------------------------------


def check(plan: Plan, teacher: Teacher) -> Plan:
    """Return the plan if it is sound for this teacher; raise BadInput naming the block and the reason otherwise."""
    if plan.family != teacher.family:
        raise BadInput(f"the plan is for family {plan.family}", f"family {teacher.family} of {teacher.name}", "use a plan made for it")
    family = family_of(teacher)
    for path in plan.stacks:
        teacher.stack(path)
    for stack in teacher.stacks:
        if stack.path not in plan.stacks:
            raise BadInput(f"stack {stack.path} is missing from the plan", f"spans over its {stack.depth} blocks", "add it")
        _check_partition(plan.stacks[stack.path], stack)
        for span in plan.stacks[stack.path]:
            _check_span(span, stack, family.stack(stack.path))
    return plan


def _check_partition(spans: list[Span], stack: StackInfo) -> None:
    where, due = stack.path, 0
    for span in spans:
        if span.last >= stack.depth:
            raise BadInput(f"{where}: block {max(span.first, stack.depth)} does not exist",
                           f"blocks 0 to {stack.depth - 1}", "correct the span")
        if span.first > due:
            missing = f"block {due}" if span.first == due + 1 else f"blocks {due}-{span.first - 1}"
            raise BadInput(f"{where}: {missing} in no span", "every block in exactly one span, in order",
                           f"add it to a span before {span.first}")
        if span.first < due:
            raise BadInput(f"{where}: block {span.first} is in two spans", "every block in exactly one span, in order",
                           "shorten one of them")
        due = span.last + 1
    if due < stack.depth:
        raise BadInput(f"{where}: block {due} to {stack.depth - 1} in no span", "every block in exactly one span",
                       "extend the last span")


def _check_span(span: Span, stack: StackInfo, row: StackRow) -> None:
    where = f"{stack.path}[{span.first}{'' if len(span) == 1 else f'-{span.last}'}]"
    for pinned in row.pinned_in(stack.depth):
        if span.first <= pinned <= span.last and not span.plain:
            raise BadInput(f"{where}: block {pinned} is pinned in this family", "it kept alone and unchanged", "give it a span of its own")
    if len(span.source) > 1 and len({stack.layout_of[b] for b in span.source}) > 1:
        odd = next(b for b in span.source if stack.layout_of[b] != stack.layout_of[span.first])
        raise BadInput(f"{where}: block {odd} has other shapes than block {span.first}", "blocks of one shape to average",
                       "choose init first, last or middle")
    if span.gain != 1 and not row.gain:
        raise BadInput(f"{where}: gain {span.gain:g}", "gain 1: this family has no factor to fold it into", "remove gain")
    if span.stream == "dual" and row.kind != "dual":
        raise BadInput(f"{where}: stream dual", "single: this stack has one stream", "remove stream")
    held = row.fitted(stack.tensors(span.source[0])).parts
    for part in span.drop:
        if part not in held:
            raise BadInput(f"{where}: part {part!r} is unknown", "one of " + ", ".join(held), "rename it")
        if span.stream == "single" and part.startswith("text."):
            raise BadInput(f"{where}: drop {part} of a single-stream block", "parts of the one stream", "remove it")
        if row.parts[part].last_only and span.last != stack.depth - 1:
            raise BadInput(f"{where}: part {part} is unreachable in the last block only", f"block {stack.depth - 1}",
                           "remove it")


# --- cost ----------------------------------------------------------------------------------------------------------


def span_parameters(span: Span, stack: StackInfo, row: StackRow) -> int:
    """Parameters of the student block this span makes."""
    layout = stack.tensors(span.source[0])
    parts = [part for name, part in row.fitted(layout).parts.items() if name in span.drop]
    gone = tuple(module for part in parts for module in part.modules) + (row.text if span.stream == "single" else ())
    rows = {rows for part in parts for rows in part.rows}  # a set: two parts may share rows
    return sum(numel(shape) - sum(r.count(shape) for r in rows if inside(name, (r.tensor,)))
               for name, shape in layout.items() if not inside(name, gone))


def parameters(plan: Plan, teacher: Teacher) -> int:
    """Parameters of the student's transformer."""
    family = family_of(teacher)
    return teacher.outside + sum(
        span_parameters(span, teacher.stack(path), family.stack(path)) for path, spans in plan.stacks.items() for span in spans
    )


def memory(count: int) -> dict[str, int]:
    """Bytes of so many weights in bf16, int8 and int4 (weights alone, no scales)."""
    return {name: int(count * size) for name, size in BYTES.items()}


def stock(plan: Plan) -> bool:
    """Whether a stock diffusers class with a smaller depth can hold the student."""
    return all(span.stream in (None, FAMILIES[plan.family].stack(path).kind) and not span.drop
               for path, spans in plan.stacks.items() for span in spans)


def info(plan: Plan, teacher: Teacher, sensitivity: SensitivityMap | None = None, weighting: str = "uniform") -> dict[str, Any]:
    """What a plan costs: the keys of `workbench plan-info` (DESIGN section 9). The predicted error is a mean over timesteps."""
    check(plan, teacher)
    count = parameters(plan, teacher)
    return {
        "parameters": count,
        "teacher_parameters": teacher.parameters,
        "ratio": count / teacher.parameters,
        "depth": plan.depth(),
        "single": {path: sum(s.stream == "single" for s in spans) for path, spans in plan.stacks.items()},
        "memory": memory(count),
        "predicted_error": predicted_error(plan, sensitivity, weighting) if sensitivity else None,
        "predicted_speedup": predicted_speedup(plan, teacher) if sensitivity else None,
    }


def info_rows(teacher: Teacher) -> dict[str, Any]:
    """What a teacher is made of: the keys of `workbench info` (DESIGN section 9), exact parameter counts, memory in bytes.

    `blocks` counts every block; `block_parameters` is the block that most are like. `parts` counts what each part holds over
    all blocks that have it, `streams` what only the image reads, only the text, and both.
    """
    family = family_of(teacher)
    stacks: list[dict[str, Any]] = []
    for stack in teacher.stacks:
        text = [sum(numel(shape) for name, shape in stack.tensors(b).items() if inside(name, family.stack(stack.path).text))
                for b in range(stack.depth)]
        blocks = [stack.block_parameters(b) for b in range(stack.depth)]
        own = sum(blocks) - sum(text)
        streams = {"image": own, "text": sum(text), "shared": 0} if stack.kind == "dual" else {"image": 0, "text": 0, "shared": own}
        stacks.append({"path": stack.path, "depth": stack.depth, "kind": stack.kind, "block_parameters": max(blocks, key=blocks.count),
                       "blocks": blocks, "streams": streams})
    return {"family": teacher.family, "class": teacher.class_name, "parameters": teacher.parameters, "outside": teacher.outside,
            "stacks": stacks, "parts": part_parameters(teacher), "memory": memory(teacher.parameters),
            "streams": {stream: sum(s["streams"][stream] for s in stacks) for stream in ("image", "text", "shared")}}


def part_parameters(teacher: Teacher) -> dict[str, int]:
    """Part -> parameters it holds over all blocks of all stacks that have it."""
    out: dict[str, int] = {}
    family = family_of(teacher)
    for stack in teacher.stacks:
        row = family.stack(stack.path)
        for name, part in row.parts.items():
            for block in range(stack.depth - 1 if part.last_only else 0, stack.depth):
                without = span_parameters(Span(blocks=(block, block), drop=(name,)), stack, row)
                out[name] = out.get(name, 0) + stack.block_parameters(block) - without
    return out


def predicted_speedup(plan: Plan, teacher: Teacher) -> float:
    """Teacher's block work over the student's, counting the parameters every token passes through."""
    family = family_of(teacher)
    before = sum(s.block_parameters(b) for s in teacher.stacks for b in range(s.depth))
    after = sum(span_parameters(sp, teacher.stack(p), family.stack(p)) for p, sps in plan.stacks.items() for sp in sps)
    return before / max(after, 1)


def predicted_error(plan: Plan, sensitivity: SensitivityMap, weighting: str = "uniform") -> float:
    """Sum of the single-edit scores of what the plan does: a first-order guess, good for ranking, not a promise.

    Errors of neighbouring edits do not add up (docs/log.md); measure the plan before you believe it.
    """
    scores = {edit: block_scores(sensitivity, edit, weighting) for edit in sensitivity.edits}
    drop, merge = scores.get("drop", {}), scores.get("merge", {})
    total = 0.0
    for path, spans in plan.stacks.items():
        for span in spans:
            averaged = span.init == "mean" and merge
            for block in range(span.first, span.last + (0 if averaged else 1)):
                if averaged or block not in span.source:
                    total += (merge if averaged else drop).get((path, block), 0.0)
            for part in span.drop:
                total += scores.get(f"drop:{part}", {}).get((path, span.source[0]), 0.0)
            if span.stream == "single":
                total += scores.get("single", {}).get((path, span.source[0]), 0.0)
    return total


# --- aggregation over timesteps --------------------------------------------------------------------------------------

WEIGHTINGS = ("normalised", "uniform", "high-noise", "low-noise")


def block_scores(sensitivity: SensitivityMap, edit: str = "drop",
                 weighting: str | Mapping[float, float] = "normalised") -> dict[tuple[str, int], float]:
    """One score per (stack, block), higher = keep, averaged over timesteps with `weighting`.

    normalised: each timestep's scores divided by their mean first (relative errors at low noise are 20-45 times those
    at high noise and would drown the rest). high-noise (Amber-Image, arXiv 2602.17047, omega_t rising with noise):
    weight t/1000. low-noise: 1 - t/1000. A mapping gives the weight of each timestep.
    """
    rows = [row for row in sensitivity.rows if row.edit == edit and row.last is None]
    weights = timestep_weights(sensitivity, edit, weighting)
    sums: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        weight = weights[row.timestep]
        total = sums.setdefault((row.stack, row.block), [0.0, 0.0])
        total[0] += weight[0] * row.score
        total[1] += weight[1]
    return {key: value / norm if norm else 0.0 for key, (value, norm) in sums.items()}


def timestep_weights(sensitivity: SensitivityMap, edit: str,
                     weighting: str | Mapping[float, float]) -> dict[float | None, tuple[float, float]]:
    """Timestep -> (factor on the score, its share of the norm)."""
    rows = [row for row in sensitivity.rows if row.edit == edit and row.last is None]
    times: Iterable[float | None] = dict.fromkeys(row.timestep for row in rows)
    out: dict[float | None, tuple[float, float]] = {}
    for time in times:
        scores = [row.score for row in rows if row.timestep == time]
        if weighting == "normalised":
            mean = sum(scores) / len(scores)
            out[time] = (1 / mean if mean > 0 else 0.0, 1.0)
        else:
            weight = _weight(time, weighting)
            out[time] = (weight, weight)
    return out


def _weight(time: float | None, weighting: str | Mapping[float, float]) -> float:
    if time is None or weighting == "uniform":
        return 1.0
    if isinstance(weighting, Mapping):
        return float(weighting.get(time, 0.0))
    if weighting == "high-noise":
        return time / 1000
    if weighting == "low-noise":
        return 1 - time / 1000
    raise BadInput(f"timestep weighting {weighting!r}", "one of " + ", ".join(WEIGHTINGS), "choose one")


# --- plans of plans ------------------------------------------------------------------------------------------------


def compose(outer: Plan, inner: Plan) -> Plan | None:
    """A plan over the student of `inner`, told in blocks of inner's teacher; None where no span can tell it.

    It says where the weights began: training between the two plans is not in it.
    """
    stacks = {}
    for path, spans in outer.stacks.items():
        parts = [_compose(span, inner.stacks[path][span.first: span.last + 1]) for span in spans]
        if None in parts:
            return None
        stacks[path] = [part for part in parts if part is not None]
    return Plan(teacher=inner.teacher, family=inner.family, origin={"rule": "composed", "of": [inner.digest, outer.digest]}, stacks=stacks)


def _compose(outer: Span, inner: list[Span]) -> Span | None:
    """One span of `outer` over the spans that made its blocks."""
    sources = [inner[block - outer.first] for block in outer.source]
    first = sources[0]
    alike = {(span.gain, span.stream, span.drop, len(span), span.init if len(span) > 1 else "mean") for span in sources}
    init: Init
    if len(inner) == 1:
        init = first.init
    elif len(sources) > 1:  # a mean of means of equal length is a mean, where nothing else stands in the span
        if len(alike) > 1 or len(first.source) != len(first):
            return None
        init = "mean"
    elif first.source == (inner[0].first,):
        init = "first"
    elif first.source == (inner[-1].last,):
        init = "last"
    elif first.source == ((inner[0].first + inner[-1].last) // 2,):
        init = "middle"
    else:
        return None
    return Span(blocks=(inner[0].first, inner[-1].last), init=init, gain=outer.gain * first.gain, stream=outer.stream or first.stream,
                drop=tuple(dict.fromkeys((*first.drop, *outer.drop))))
