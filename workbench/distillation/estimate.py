"""What a distillation takes on devices that are not here: memory and time, from the plan alone.

Every term is a product of counts that the result names; docs/distillation.md goes through them for
Qwen-Image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..plans import Tokens, parameters, work
from ..plans.cost import span_parameters
from ..plans.spans import family_of, identity
from ..records import BadInput, DistillSpec, Plan, Stage, Teacher
from ..training.model_inputs import check_branches
from .trainable import chosen_blocks

GIB = 2**30
STATE = {"adamw": 8, "muon": 4}  # bytes of moments a trained parameter (Muon's matrices have one)
# bytes a token and channel of a block's width that its backward keeps, in bfloat16: measured on a
# Qwen-Image block, see docs
SAVED = 76
# share of the peak that such training reaches (ours; Megatron-LM reports 0.4 to 0.5 on A100)
USED = 0.4
RESERVE = 1.5 * GIB  # CUDA's context, and what the allocator cannot fill
LINK = 20e9  # bytes a second from the host's memory, pinned, over PCIe 4 x16

# Dense bfloat16 peak, multiply-adds counted twice, and memory in bytes. Vendors' data sheets.
DEVICES: dict[str, tuple[float, float]] = {
    "a100": (312e12, 80e9),
    "h100": (989e12, 80e9),
    "h200": (989e12, 141e9),
    "h20": (148e12, 96e9),
    "a6000": (155e12, 48e9),
    "4090": (165e12, 24e9),
    "3090": (71e12, 24e9),
    "l4": (121e12, 24e9),
    "t4": (65e12, 16e9),
}
BY_MEMORY = {80: "a100", 141: "h200", 96: "h20", 48: "a6000", 24: "4090", 16: "t4"}


@dataclass(frozen=True)
class Devices:
    """`8x80GB`, `1x24GB`, `4xH100`."""

    count: int
    name: str
    peak: float  # floating-point operations a second
    memory: float  # bytes

    @classmethod
    def parse(cls, text: str) -> Devices:
        """Raises BadInput for text that is not a count and a device."""
        match = re.fullmatch(r"(?:(\d+)\s*[x*])?\s*(\w+?)(gb)?", text.strip().lower())
        name = device_name(match[2], bool(match[3])) if match else ""
        if not match or name not in DEVICES:
            known = ", ".join(DEVICES)
            expected = f"COUNTxDEVICE, as 8x80GB or 4xh100; known: {known}"
            raise BadInput(f"devices {text!r}", expected, "choose one")
        return cls(int(match[1] or 1), name, *DEVICES[name])


def device_name(word: str, gigabytes: bool) -> str:
    """`80` with GB is the device of that memory; anything else names itself (as `4090`)."""
    if word.isdigit() and (gigabytes or word not in DEVICES):
        return BY_MEMORY.get(int(word), "")
    return word


@dataclass(frozen=True)
class Sizes:
    """How a stage is run on the devices."""

    devices: int = 1
    shard: bool = False
    checkpointing: bool = False
    # teacher and student lie in the host's memory and come block by block: in estimates only, the
    # loop cannot
    offload: bool = False
    parts: int = 1  # of a device's batch, one after the other
    tokens: Tokens = field(default_factory=Tokens)


@dataclass(frozen=True)
class StageEstimate:
    """What one stage takes. bytes are per device."""

    stage: str
    steps: int
    batch: int
    accumulate: int
    branches: str  # both: a second pass, which takes time and no memory
    parts: int
    shard: bool
    checkpointing: bool
    offload: bool
    bytes: float
    fits: bool
    terms: dict[str, float]  # of bytes
    host_bytes: float | None  # None: nothing is offloaded
    seconds_per_step: float
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """What a distillation takes. memory, bytes: of one device."""

    devices: str
    memory: float
    bytes: float
    fits: bool
    seconds: float
    device_hours: float
    parameters: int
    teacher_parameters: int
    stages: list[StageEstimate]


@dataclass(frozen=True)
class StudentBlock:
    """A block of the plan, and how many parameters it has."""

    place: tuple[str, int]
    parameters: int
    plain: bool  # a teacher block, unchanged


def estimate_on(
    spec: DistillSpec,
    teacher: Teacher,
    plan: Plan,
    devices: Devices,
    *,
    tokens: Tokens | None = None,
) -> Estimate:
    """Memory and time for devices that are not here.

    Each stage is run the plainest way that fits: whole, checkpointed, split, offloaded, each with
    the largest part of a device's batch at a time. Raises BadInput for a stage that the teacher's
    family cannot run.
    """
    for stage in spec.stages:
        check_branches(stage, teacher.family)
    stages = [
        estimate_stage(stage, teacher, plan, devices, tokens or Tokens()) for stage in spec.stages
    ]
    seconds = sum(row.seconds for row in stages)
    return Estimate(
        devices=f"{devices.count} x {devices.name}",
        memory=devices.memory,
        bytes=max(row.bytes for row in stages),
        fits=all(row.fits for row in stages),
        seconds=seconds,
        device_hours=seconds * devices.count / 3600,
        parameters=parameters(plan, teacher),
        teacher_parameters=teacher.parameters,
        stages=stages,
    )


def estimate_stage(
    stage: Stage, teacher: Teacher, plan: Plan, devices: Devices, tokens: Tokens
) -> StageEstimate:
    """The first of `ways` that fits, else the last."""
    for sizes in ways(stage, devices, tokens):
        terms = stage_memory(stage, teacher, plan, sizes)
        if sum(terms.values()) <= devices.memory:
            break
    seconds = stage_work(stage, teacher, plan, sizes) / (USED * devices.peak * devices.count)
    if sizes.offload:
        seconds += transfer_seconds(stage, teacher, plan, sizes.parts)
    return StageEstimate(
        stage=stage.name,
        steps=stage.steps,
        batch=stage.batch,
        accumulate=stage.accumulate,
        branches=stage.branches,
        parts=sizes.parts,
        shard=sizes.shard,
        checkpointing=sizes.checkpointing,
        offload=sizes.offload,
        bytes=sum(terms.values()),
        fits=sum(terms.values()) <= devices.memory,
        terms=terms,
        host_bytes=host_memory(stage, teacher, plan) if sizes.offload else None,
        seconds_per_step=seconds,
        seconds=seconds * stage.steps,
    )


def ways(stage: Stage, devices: Devices, tokens: Tokens) -> Iterator[Sizes]:
    """How a stage can be run, plainest first."""
    per_device = max(1, stage.batch // devices.count)
    for shard, checkpointing, offload in (
        (False, False, False),
        (False, True, False),
        (True, False, False),
        (True, True, False),
        (False, True, True),
    ):
        if shard and devices.count == 1:
            continue
        for parts in (1, 2, 4, 8, 16, 32, 64, 128):
            if parts <= per_device:
                yield Sizes(devices.count, shard, checkpointing, offload, parts, tokens)


# --- memory ---------------------------------------------------------------------------------------


def stage_memory(stage: Stage, teacher: Teacher, plan: Plan, sizes: Sizes) -> dict[str, float]:
    """Bytes on one device at the peak of a step, term by term.

    The teacher is in bfloat16, the student in float32.
    """
    blocks = student_blocks(plan, teacher)
    total = parameters(plan, teacher)
    outside = total - sum(block.parameters for block in blocks)
    blockwise = stage.gradient == "span" and stage.inputs == "teacher"
    changed = sum(block.parameters for block in blocks if not block.plain)
    # a block-wise stage borrows the unchanged blocks from the teacher
    in_memory = float(changed + outside if blockwise else total)
    trained = float(trained_parameters(stage, plan, blocks, outside))
    split = sizes.devices if sizes.shard else 1
    largest = max(block.parameters for block in blocks)
    one_at_a_time = blockwise or sizes.checkpointing
    original = max(teacher.parameters, 1)
    teacher_block = 2.0 * original / teacher_depth(teacher)  # bytes
    terms = {
        "teacher": 2.0 * original / split,
        "student": 4.0 * in_memory / split,
        "gradients": 4.0 * trained / split,
        "optimizer": float(STATE[stage.optimizer]) * trained / split,
        "average": 4.0 * trained / split if stage.ema else 0.0,
        "activations": activations(stage, teacher, sizes, len(blocks)),
        "casts": 2.0 * (largest if one_at_a_time else total),
        "gathered": 4.0 * largest + teacher_block if sizes.shard else 0.0,
        "reserve": RESERVE,
    }
    if sizes.offload:  # one block of each at a time, and the next on its way
        terms |= {
            "teacher": 2 * teacher_block,
            "student": 2 * 4.0 * largest,
            "gradients": 2 * 4.0 * largest,
            "optimizer": 0.0,
            "average": 0.0,
        }
    return terms


def trained_parameters(stage: Stage, plan: Plan, blocks: list[StudentBlock], outside: int) -> int:
    """How many parameters train; with after-first-cut, those outside the blocks are left out."""
    if stage.train == "all":
        return sum(block.parameters for block in blocks) + outside
    chosen = set(chosen_blocks([block.place for block in blocks], plan, stage))
    return sum(block.parameters for block in blocks if block.place in chosen)


def activations(stage: Stage, teacher: Teacher, sizes: Sizes, depth: int) -> float:
    """Bytes that a step keeps for its backward."""
    blockwise = stage.gradient == "span" and stage.inputs == "teacher"
    samples = max(1, stage.batch // (sizes.devices * sizes.parts))
    numbers = samples * (sizes.tokens.image + sizes.tokens.text) * _width(teacher)
    whole_blocks = 1 if blockwise or sizes.checkpointing else depth
    states = 1
    if blockwise:
        states = 2
    elif sizes.checkpointing:
        states = depth
    return float(SAVED * numbers * whole_blocks + 2 * numbers * states)


def host_memory(stage: Stage, teacher: Teacher, plan: Plan) -> float:
    """Bytes of the host's memory where everything is offloaded."""
    terms = stage_memory(stage, teacher, plan, Sizes())
    return sum(terms[name] for name in ("teacher", "student", "gradients", "optimizer", "average"))


# --- time -----------------------------------------------------------------------------------------


def stage_work(stage: Stage, teacher: Teacher, plan: Plan, sizes: Sizes) -> float:
    """Floating-point operations of one optimizer step, all devices together.

    A backward is two forwards, a checkpointed one three. Each branch that is supervised takes a
    pass of its own; the empty prompt counts as long as a caption.
    """
    full = sum(work(identity(teacher), teacher, sizes.tokens).values())
    student = sum(work(plan, teacher, sizes.tokens).values())
    by_span = stage.gradient == "span"
    trained = student
    if by_span and stage.train != "all":
        trained = sum(work(_only_changed(plan), teacher, sizes.tokens).values())
    teacher_forwards = stage.passes + (stage.guidance is not None)
    if set(stage.losses) == {"task"}:
        teacher_forwards = 0
    own_forward = student if by_span and stage.inputs == "student" else 0.0
    passes = 4 if sizes.checkpointing and not by_span else 3
    per_sample = full * teacher_forwards + stage.passes * (own_forward + passes * trained)
    return 2.0 * stage.batch * stage.accumulate * per_sample


def transfer_seconds(stage: Stage, teacher: Teacher, plan: Plan, parts: int) -> float:
    """Seconds that an offloaded step moves weights between host and device."""
    terms = stage_memory(stage, teacher, plan, Sizes())
    student = terms["student"] + terms["gradients"]
    bytes_moved = terms["teacher"] + 2 * student + (terms["optimizer"] + student) / parts
    return stage.accumulate * stage.passes * parts * bytes_moved / LINK


# --- the plan -------------------------------------------------------------------------------------


def student_blocks(plan: Plan, teacher: Teacher) -> list[StudentBlock]:
    family = family_of(teacher)
    blocks = []
    for path, spans in plan.stacks.items():
        row = family.stack(path)
        for index, span in enumerate(spans):
            count = span_parameters(span, teacher.stack(path), row)
            blocks.append(StudentBlock((path, index), count, span.plain))
    return blocks


def _only_changed(plan: Plan) -> Plan:
    stacks = {}
    for path, spans in plan.stacks.items():
        stacks[path] = [span for span in spans if not span.plain]
    return plan.model_copy(update={"stacks": stacks})


def teacher_depth(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def _width(teacher: Teacher) -> int:
    """Channels of a block's state: the commonest side of its square matrices."""
    sides = []
    for stack in teacher.stacks:
        for shape in stack.tensors(0).values():
            if len(shape) == 2 and shape[0] == shape[1]:
                sides.append(shape[0])
    return max(set(sides), key=sides.count) if sides else 1024
