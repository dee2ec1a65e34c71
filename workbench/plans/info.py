"""What a plan costs, and what a teacher is made of: the figures of `plan-info` and `info`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..families import StackRow, inside
from ..records import Plan, SensitivityMap, Span, StackInfo, Teacher, numel
from .check import check
from .cost import FreeCut, free_cuts, memory, parameters, span_parameters
from .predicted_error import PredictedError, predicted_error
from .spans import family_of
from .speed import predicted_latency
from .tokens import Tokens
from .weighting import Weighting


@dataclass(frozen=True)
class PlanInfo:
    """What a plan costs, and what is predicted of its student.

    depth, single: stack -> student blocks, and how many of them are single-stream. memory: bytes
    of the weights by precision. latency: share of the teacher's time per step, lower is faster.
    error: None where no map was given.
    """

    parameters: int
    teacher_parameters: int
    depth: dict[str, int]
    single: dict[str, int]
    memory: dict[str, int]
    latency: float
    error: PredictedError | None
    error_unit: str | None
    free_cuts: list[FreeCut]

    @property
    def ratio(self) -> float:
        """Share of the teacher's parameters."""
        return self.parameters / self.teacher_parameters

    @property
    def speedup(self) -> float:
        """The teacher's time per step over the student's; higher is faster."""
        return 1 / max(self.latency, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """The keys of `workbench plan-info --json`. The speedup is null where no map was given, as
        the error is; `predicted_latency`, its inverse, is always there.
        """
        error = self.error
        return {
            "parameters": self.parameters,
            "teacher_parameters": self.teacher_parameters,
            "ratio": self.ratio,
            "depth": self.depth,
            "single": self.single,
            "memory": self.memory,
            "predicted_error": error.value if error else None,
            "predicted_error_unit": self.error_unit,
            "predicted_error_unknown": error.unknown_json() if error else None,
            "predicted_speedup": self.speedup if error else None,
            "predicted_latency": self.latency,
            "free_cuts": [asdict(cut) for cut in self.free_cuts],
        }


def plan_info(
    plan: Plan,
    teacher: Teacher,
    sensitivity: SensitivityMap | None = None,
    weighting: Weighting = "uniform",
    tokens: Tokens | None = None,
) -> PlanInfo:
    """What a plan costs. The predicted error is a mean over timesteps.

    tokens: sequence lengths; None: those at which the teacher is sampled by default. Raises
    BadInput where the plan is not sound.
    """
    plan = check(plan, teacher)
    count = parameters(plan, teacher)
    error = predicted_error(plan, sensitivity, weighting) if sensitivity else None
    return PlanInfo(
        parameters=count,
        teacher_parameters=teacher.parameters,
        depth=plan.depth(),
        single={path: single_blocks(plan, teacher, path) for path in plan.stacks},
        memory=memory(count),
        latency=predicted_latency(plan, teacher, tokens),
        error=error,
        error_unit=sensitivity.unit if sensitivity else None,
        free_cuts=free_cuts(plan, teacher),
    )


def single_blocks(plan: Plan, teacher: Teacher, path: str) -> int:
    """How many student blocks of a dual stack are single-stream, by this plan or an earlier one."""
    already = single_stream_blocks(teacher, path)
    spans = plan.stacks[path]
    return sum(span.stream == "single" or span.source[0] in already for span in spans)


@dataclass(frozen=True)
class Streams:
    """Parameters that only the image reads, only the text reads, and both read."""

    image: int
    text: int
    shared: int


def teacher_info(teacher: Teacher) -> dict[str, Any]:
    """What a teacher is made of: the keys of `workbench info --json`. Exact parameter counts,
    memory in bytes.

    `blocks` counts every block; `block_parameters` is the block that most are like. `parts` counts
    what each part holds over all blocks that have it.
    """
    streams = {stack.path: streams_of(teacher, stack) for stack in teacher.stacks}
    return {
        "family": teacher.family,
        "class": teacher.class_name,
        "parameters": teacher.parameters,
        "outside": teacher.outside,
        "stacks": [_stack_info(teacher, stack, streams[stack.path]) for stack in teacher.stacks],
        "parts": part_parameters(teacher),
        "memory": memory(teacher.parameters),
        "streams": {
            "image": sum(each.image for each in streams.values()),
            "text": sum(each.text for each in streams.values()),
            "shared": sum(each.shared for each in streams.values()),
        },
    }


def _stack_info(teacher: Teacher, stack: StackInfo, streams: Streams) -> dict[str, Any]:
    blocks = [stack.block_parameters(block) for block in range(stack.depth)]
    single = stack.depth
    if stack.kind == "dual":
        single = len(single_stream_blocks(teacher, stack.path))
    return {
        "path": stack.path,
        "depth": stack.depth,
        "kind": stack.kind,
        "single": single,
        "block_parameters": max(blocks, key=blocks.count),
        "blocks": blocks,
        "streams": asdict(streams),
    }


def streams_of(teacher: Teacher, stack: StackInfo) -> Streams:
    """Whose the parameters of a stack are."""
    row = family_of(teacher).stack(stack.path)
    single = set(range(stack.depth))
    if stack.kind == "dual":
        single = single_stream_blocks(teacher, stack.path)
    image = text = shared = 0
    for block in range(stack.depth):
        total = stack.block_parameters(block)
        of_text = _text_parameters(stack, row, block)
        text += of_text
        if block in single:
            shared += total
        else:
            image += total
        image -= of_text
    return Streams(image, text, shared)


def _text_parameters(stack: StackInfo, row: StackRow, block: int) -> int:
    """Parameters of a block that only the text stream uses."""
    layout = stack.tensors(block)
    return sum(numel(shape) for name, shape in layout.items() if inside(name, row.text))


def single_stream_blocks(teacher: Teacher, path: str) -> set[int]:
    """The blocks of a dual stack that an earlier plan made single-stream: they have no text
    modules.
    """
    stack = teacher.stack(path)
    if stack.kind != "dual":
        return set()
    row = family_of(teacher).stack(path)
    blocks = range(stack.depth)
    return {block for block in blocks if row.fitted(stack.tensors(block)).kind == "single"}


def part_parameters(teacher: Teacher) -> dict[str, int]:
    """Part -> parameters it holds over all blocks of all stacks that have it."""
    counts: dict[str, int] = {}
    family = family_of(teacher)
    for stack in teacher.stacks:
        row = family.stack(stack.path)
        for name, part in row.parts.items():
            start = stack.depth - 1 if part.last_only else 0
            for block in range(start, stack.depth):
                without = span_parameters(Span(blocks=(block, block), drop=(name,)), stack, row)
                saved = stack.block_parameters(block) - without
                counts[name] = counts.get(name, 0) + saved
    return {name: count for name, count in counts.items() if count}
