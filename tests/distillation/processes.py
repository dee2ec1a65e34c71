"""A child of test_processes: one of several processes that distil the same tiny student, whole and
split, and leave a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from workbench import surgery
from workbench.distillation.loop import distill
from workbench.distillation.processes import Processes, joined
from workbench.records import BadInput, DistillSpec, Loss, Modulation, Plan, Span, Stage
from workbench.training.batch import PLAIN, Batch, Drawing
from workbench.training.batch_source import Bucket, LatentSource
from workbench.training.cache import Sample, Shard, write_shard

STAGES = [
    Stage(name="fed", steps=2, batch=6, lr=1e-3, ema=0.9, losses={"feature": Loss(mask_sigma=4.0)}),
    Stage(
        name="full",
        inputs="student",
        gradient="full",
        train="all",
        steps=3,
        batch=6,
        accumulate=2,
        lr=1e-3,
        ema=0.9,
        clip=0.2,
        losses={
            "output": Loss(),
            "feature": Loss(weight=0.1),
            "task": Loss(form="plain", weight=0.1),
        },
    ),
]
SPEC = DistillSpec(stages=STAGES)
SHORT = DistillSpec(stages=[STAGES[1].model_copy(update={"steps": 2})])
FITTED = DistillSpec(
    stages=[STAGES[1].model_copy(update={"steps": 2, "fit": "output-projections"})]
)
MUON = DistillSpec(
    stages=[
        stage.model_copy(update={"optimizer": "muon", "precision": "bfloat16"}) for stage in STAGES
    ]
)
PLAN = Plan(
    teacher="tiny",
    family="qwenimage",
    stacks={
        "transformer_blocks": [
            Span(blocks=(0, 1), init="mean", gain=2),
            Span(blocks=(2, 2)),
            Span(blocks=(3, 3)),
        ]
    },
)
# every block's modulation in two factors
FACTORED = PLAN.model_copy(
    update={
        "stacks": {
            path: [span.model_copy(update={"modulation": Modulation(rank=4)}) for span in spans]
            for path, spans in PLAN.stacks.items()
        }
    }
)
AFTER = 3  # steps, when a stopped run stops
POISONED = 2  # the first micro-batch of the second step


def samples() -> list[Sample]:
    g = torch.Generator().manual_seed(0)
    return [
        Sample(
            torch.randn(6, 4 * tiny.Z_DIM, generator=g),
            {"encoder_hidden_states": torch.randn(3 + i % 4, tiny.TEXT_DIM, generator=g)},
        )
        for i in range(16)
    ]


def source(folder: Path) -> LatentSource:
    file = folder / "samples.safetensors"
    if not file.exists():
        write_shard(file, samples())
    return LatentSource([Bucket([Shard(file)], (1, 2, 3))], family="qwenimage")


def losses(
    folder: Path,
    spec: DistillSpec,
    processes: Processes,
    plan: Plan = PLAN,
    **options: object,
) -> tuple[list[float], torch.nn.Module]:
    teacher = tiny.tiny_transformer(depth=4)
    student = surgery.student_transformer(teacher, plan)
    rows = list(
        distill(student, teacher, plan, spec, source(folder), processes=processes, **options)
    )  # type: ignore[arg-type]
    return [p.metrics["loss"] for p in rows if p.metrics], student


class Poisoned:
    """The last sample of one micro-batch, which only the last process sees, is no number; the
    micro-batch behind it is sound.
    """

    def __init__(self, sound: LatentSource) -> None:
        self.sound = sound
        self.two_branches = sound.two_branches

    def batch(self, step: int, size: int, seed: int, how: Drawing = PLAIN) -> Batch:
        batch = self.sound.batch(step, size, seed, how)
        if step == POISONED and how.part[0] == how.part[1] - 1:
            batch.clean[-1] = float("nan")
        return batch


def refusal(folder: Path, name: str, processes: Processes) -> str:
    """What a run says that meets the poisoned sample, in its second step of the second stage."""
    teacher = tiny.tiny_transformer(depth=4)
    student = surgery.student_transformer(teacher, PLAN)
    spec = DistillSpec(stages=[STAGES[1].model_copy(update={"losses": {"output": Loss()}})])
    try:
        for _ in distill(
            student,
            teacher,
            PLAN,
            spec,
            Poisoned(source(folder)),
            processes=processes,
            checkpoint_folder=folder / name,
            checkpoint_every=0,
        ):
            pass
    except BadInput as error:
        return str(error).replace(str(folder / name), "")
    return "nothing"


def stopping() -> object:
    polls = iter(range(100))
    return lambda: next(polls) >= AFTER


def factored_runs(folder: Path, whole: Processes, split: Processes, out: dict[str, Any]) -> None:
    """The runs of a student with low-rank modulation; one of them stopped and taken up again."""
    out["whole factored"], _ = losses(folder, SPEC, whole, FACTORED)
    out["split factored"], _ = losses(folder, SPEC, split, FACTORED)
    checkpoints = folder / "split factors"
    losses(folder, SPEC, split, FACTORED, checkpoint_folder=checkpoints, stop=stopping())
    out["split factored resumed"], student = losses(
        folder, SPEC, split, FACTORED, checkpoint_folder=checkpoints, resume=True
    )
    linear = student.transformer_blocks[0].img_mod[1]  # type: ignore[index, union-attr]
    for factor in ("down", "up"):
        weight = getattr(linear, factor).weight
        out[f"{factor} here"] = weight.to_local().numel()
        out[factor] = weight.numel()


def main() -> None:
    folder, rank, world, address = (
        Path(sys.argv[1]),
        int(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
    )
    torch.set_num_threads(1)
    out: dict[str, Any] = {}
    with joined(rank, world, address, "cpu", timeout=120) as whole:
        split = Processes(whole.rank, whole.world, sharded=True)
        for name, processes in (("whole", whole), ("split", split)):
            out[name], _ = losses(folder, SPEC, processes)
            out[f"{name} muon"], _ = losses(folder, MUON, processes)
            losses(folder, SPEC, processes, checkpoint_folder=folder / name, stop=stopping())
            if rank == 0:
                shutil.copytree(folder / name, folder / f"{name} left")
            out[f"{name} resumed"], student = losses(
                folder, SPEC, processes, checkpoint_folder=folder / name, resume=True
            )
            out[f"{name} refused"] = refusal(folder, f"{name} refused", processes)
        out["whole fitted"], _ = losses(folder, FITTED, whole)
        out["split checkpointing"], _ = losses(folder, SHORT, split, gradient_checkpointing=True)
        blocks = student.transformer_blocks  # type: ignore[union-attr]
        weight = blocks[0].img_mlp.net[2].weight  # type: ignore[index, union-attr]
        out["numbers here"], out["numbers"] = weight.to_local().numel(), weight.numel()
        factored_runs(folder, whole, split, out)
    (folder / f"refused-{rank}.json").write_text(
        json.dumps([out["whole refused"], out["split refused"]])
    )
    if rank == 0:
        (folder / "out.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main()
