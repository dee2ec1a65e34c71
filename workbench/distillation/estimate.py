"""What a distillation takes, on paper: memory and time per device, from the plan alone, for devices
that are not here.

Every term is a product of counts that the result names; docs/distillation.md goes through them for
Qwen-Image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..plans import Tokens, parameters, work
from ..plans.cost import span_parameters
from ..plans.spans import family_of, identity
from ..records import BadInput, DistillSpec, Plan, Stage, Teacher

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
        match = re.fullmatch(r"(?:(\d+)\s*[x*])?\s*(\w+?)(gb)?", text.strip().lower())
        name = None
        if match:
            name = (
                BY_MEMORY.get(int(match[2]))
                if match[2].isdigit() and (match[3] or match[2] not in DEVICES)
                else match[2]
            )
        if not match or name not in DEVICES:
            raise BadInput(
                f"devices {text!r}",
                "COUNTxDEVICE, as 8x80GB or 4xh100; known: " + ", ".join(DEVICES),
                "choose one",
            )
        return cls(int(match[1] or 1), name, *DEVICES[name])


@dataclass(frozen=True)
class Sizes:
    """What the estimate counts with."""

    devices: int = 1
    shard: bool = False
    checkpointing: bool = False
    # teacher and student lie in the host's memory and come block by block: on paper only, the loop
    # cannot
    offload: bool = False
    parts: int = 1  # of a device's batch, one after the other
    tokens: Tokens = field(default_factory=Tokens)


def stage_memory(stage: Stage, teacher: Teacher, plan: Plan, sizes: Sizes) -> dict[str, float]:
    """Bytes on one device, term by term, at the peak of a step. The teacher is in bfloat16, the
    student in float32.
    """
    blocks = _blocks(plan, teacher)
    total, inside = parameters(plan, teacher), sum(count for count, _ in blocks)
    spanwise = stage.gradient == "span" and stage.inputs == "teacher"
    changed = sum(count for count, plain in blocks if not plain)
    trained = float(inside if stage.train == "all" else changed) + (
        total - inside if stage.train == "all" else 0
    )
    held = float(changed + total - inside if spanwise else total)  # the teacher lends the others
    split = sizes.devices if sizes.shard else 1
    largest = max(count for count, _ in blocks)
    width = _width(teacher)
    rows = (
        max(1, stage.batch // (sizes.devices * sizes.parts))
        * (sizes.tokens.image + sizes.tokens.text)
        * width
    )
    kept = 1 if spanwise or sizes.checkpointing else len(blocks)
    between = 2 * rows * (2 if spanwise else len(blocks) if sizes.checkpointing else 1)
    original = max(teacher.parameters, 1)
    terms = {
        "teacher": 2.0 * original / split,
        "student": 4.0 * held / split,
        "gradients": 4.0 * trained / split,
        "optimizer": float(STATE[stage.optimizer]) * trained / split,
        "average": 4.0 * trained / split if stage.ema else 0.0,
        "activations": float(SAVED * rows * kept + between),
        "casts": 2.0 * (largest if spanwise or sizes.checkpointing else total),
        "gathered": (4.0 * largest + 2.0 * original / teacher_depth(teacher))
        if sizes.shard
        else 0.0,
        "reserve": RESERVE,
    }
    if sizes.offload:  # one block of each at a time, and the next on its way
        terms |= {
            "teacher": 2 * 2.0 * original / teacher_depth(teacher),
            "student": 2 * 4.0 * largest,
            "gradients": 2 * 4.0 * largest,
            "optimizer": 0.0,
            "average": 0.0,
        }
    return terms


def host_memory(stage: Stage, teacher: Teacher, plan: Plan) -> float:
    """Bytes of the host's memory where everything is offloaded."""
    terms = stage_memory(stage, teacher, plan, Sizes())
    return sum(terms[name] for name in ("teacher", "student", "gradients", "optimizer", "average"))


def stage_work(stage: Stage, teacher: Teacher, plan: Plan, sizes: Sizes) -> float:
    """Floating-point operations of one optimizer step, all devices together: a backward is two
    forwards, a checkpointed one three.
    """
    full = sum(work(identity(teacher), teacher, sizes.tokens).values())
    student = sum(work(plan, teacher, sizes.tokens).values())
    spanwise = stage.gradient == "span"
    changed = (
        sum(work(_only_changed(plan), teacher, sizes.tokens).values())
        if spanwise and stage.train != "all"
        else student
    )
    forwards = (
        0.0 if set(stage.losses) == {"task"} else full * (2 if stage.guidance is not None else 1)
    )
    own = student if spanwise and stage.inputs == "student" else 0.0
    return (
        2.0
        * stage.batch
        * stage.accumulate
        * (forwards + own + (4 if sizes.checkpointing and not spanwise else 3) * changed)
    )


def on_paper(
    wanted: DistillSpec,
    teacher: Teacher,
    plan: Plan,
    devices: Devices,
    *,
    tokens: Tokens | None = None,
) -> dict[str, Any]:
    """Memory and time for devices that are not here. Picks the plainest way that fits: whole,
    checkpointed, split, offloaded, each with the largest part of a device's batch at a time."""
    rows: list[dict[str, Any]] = []
    for stage in wanted.stages:
        each = max(1, stage.batch // devices.count)
        options = [
            Sizes(devices.count, shard, check, offload, parts, tokens or Tokens())
            for shard, check, offload in (
                (False, False, False),
                (False, True, False),
                (True, False, False),
                (True, True, False),
                (False, True, True),
            )
            if not (shard and devices.count == 1)
            for parts in (1, 2, 4, 8, 16, 32, 64, 128)
            if parts <= each
        ]
        sizes = next(
            (
                s
                for s in options
                if sum(stage_memory(stage, teacher, plan, s).values()) <= devices.memory
            ),
            options[-1],
        )
        terms = stage_memory(stage, teacher, plan, sizes)
        seconds = stage_work(stage, teacher, plan, sizes) / (USED * devices.peak * devices.count)
        terms_of_host = stage_memory(stage, teacher, plan, Sizes())
        if sizes.offload:
            held = terms_of_host["student"] + terms_of_host["gradients"]
            moved = (
                terms_of_host["teacher"]
                + 2 * held
                + (terms_of_host["optimizer"] + held) / sizes.parts
            )
            seconds += stage.accumulate * sizes.parts * moved / LINK
        rows.append(
            {
                "stage": stage.name,
                "steps": stage.steps,
                "batch": stage.batch,
                "accumulate": stage.accumulate,
                "parts": sizes.parts,
                "shard": sizes.shard,
                "checkpointing": sizes.checkpointing,
                "offload": sizes.offload,
                "bytes": sum(terms.values()),
                "fits": sum(terms.values()) <= devices.memory,
                "terms": terms,
                "host_bytes": host_memory(stage, teacher, plan) if sizes.offload else None,
                "seconds_per_step": seconds,
                "seconds": seconds * stage.steps,
            }
        )
    return {
        "devices": f"{devices.count} x {devices.name}",
        "memory": devices.memory,
        "bytes": max(row["bytes"] for row in rows),
        "fits": all(row["fits"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "device_hours": sum(row["seconds"] for row in rows) * devices.count / 3600,
        "parameters": parameters(plan, teacher),
        "teacher_parameters": teacher.parameters,
        "stages": rows,
    }


def _blocks(plan: Plan, teacher: Teacher) -> list[tuple[int, bool]]:
    """(parameters, plain) of each student block."""
    family = family_of(teacher)
    return [
        (span_parameters(span, teacher.stack(path), family.stack(path)), span.plain)
        for path, spans in plan.stacks.items()
        for span in spans
    ]


def _only_changed(plan: Plan) -> Plan:
    return plan.model_copy(
        update={
            "stacks": {
                path: [s for s in spans if not s.plain] for path, spans in plan.stacks.items()
            }
        }
    )


def teacher_depth(teacher: Teacher) -> int:
    return sum(stack.depth for stack in teacher.stacks)


def _width(teacher: Teacher) -> int:
    """Channels of a block's state: the commonest side of its square matrices."""
    sides = [
        shape[0]
        for stack in teacher.stacks
        for shape in stack.tensors(0).values()
        if len(shape) == 2 and shape[0] == shape[1]
    ]
    return max(set(sides), key=sides.count) if sides else 1024
