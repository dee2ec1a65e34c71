"""What a distillation is made of: student and teachers, stages, data, output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import models, plans
from ..distillation.loop import distill
from ..distillation.processes import Processes
from ..distillation.stage_groups import in_groups
from ..distillation.trainable import chosen_blocks, student_places
from ..models import Pipeline
from ..models.blocks import Place
from ..models.headers import headers
from ..models.loading import load_dtype
from ..models.placement import (
    Choice,
    check_weights,
    choose,
    free_text_encoders,
    load_placed,
    sizes_of,
)
from ..recipes import table as recipes
from ..records import BadInput, DistillSpec, Plan, Progress, SensitivityMap, Stage, numel
from ..specs import DistillVerbSpec
from ..specs.placements import AUTO, PLACEMENTS
from ..specs.teacher_weights import AS_LOADED
from ..surgery.target import check_target
from ..training.batch_source import LatentSource
from ..training.data_sources import CacheRequest
from ..training.loss_table import check_losses
from ..training.model_inputs import check_branches, check_trainable
from ..training.optim import check_states
from ..workspace.store import Store
from .context import Context
from .known_maps import named_map, newest_map
from .lineage import Lineage, lineage
from .resolve import Sampling
from .training_data import DataSets, check_data, fill_caches, requests_of

WEIGHT = 4  # bytes of a number of the student, in float32
GRADIENT = 4
STATES = {"device": 8, "host": 0, "8bit": 2}  # of a number, of AdamW; Stage.optimizer_states

Scores = dict[tuple[str, int], float]  # (stack, teacher block) -> sensitivity, higher = keep


@dataclass
class DistillWork:
    """A distillation made ready: what is trained, by whom, on what, and where to."""

    spec: DistillVerbSpec
    line: Lineage
    stages: DistillSpec
    scores: Scores | None
    out: Path
    requests: dict[str | None, CacheRequest]  # of data, by the name that stages give it
    sets: DataSets = field(default_factory=DataSets)
    sources: dict[str | None, LatentSource] = field(default_factory=dict)
    teacher: nn.Module | None = None
    student: nn.Module | None = None
    original: tuple[nn.Module, Plan] | None = None
    pipe: Pipeline | None = None  # of the original teacher, for its text encoder and VAE
    held: Choice | None = None  # how the teachers are held
    shortened: str = ""  # how many of the requested steps fit into the time, where not all do

    @classmethod
    def of(
        cls, spec: DistillVerbSpec, context: Context, stages: DistillSpec | None = None
    ) -> DistillWork:
        """Everything that can be refused before a model is loaded. Raises BadInput.

        stages: those of the first process, in the processes behind it.
        """
        line = lineage(spec.student, context.store)
        stages = in_groups(stages or stages_of(spec), plans_over(line))
        check_placement(spec)
        about = line.student.description
        check_trainable(about.family, about.config)
        for stage in stages.stages:
            check_losses(stage)
            check_states(stage.name, stage.optimizer_states, shard=spec.shard)
            check_branches(stage, line.student.description.family)
        smallest = min(stage.batch for stage in stages.stages)
        if spec.processes > smallest:
            raise BadInput(
                f"{spec.processes} processes for a batch of {smallest}",
                "at least a sample for each",
                "lower --processes or raise batch",
            )
        name = f"{line.student.folder.name}-{stages.name}"
        out = Path(spec.out or context.store.out("student", name)).absolute()
        check_target(out, line.student.folder, "student")
        requests = data_requests(spec, line, stages)
        check_data(requests)
        scores = scores_for(stages, spec.sensitivity, line, context.store)
        return cls(spec, line, stages, scores, out, requests)

    @property
    def checkpoints(self) -> Path:
        return self.out.with_name(f"{self.out.name}.checkpoints")

    @property
    def saved_stages(self) -> Path:
        """The stages of the run that the checkpoints are of."""
        return self.checkpoints / "spec.yaml"

    @property
    def sampling(self) -> Sampling:
        """How pictures of this student are sampled."""
        return sampling_of(self.spec, self.line)

    def folder(self, context: Context) -> Path:
        """For the logs of other processes, and for samples."""
        return context.folder or self.out.with_name(f"{self.out.name}.watch")

    def prepare(self, context: Context) -> Iterator[Progress]:
        """Fill the data caches and load the models; asked to stop, it leaves `teacher` None."""
        self.held = self.choose_placement(context)
        print(f"placement of the teacher: {self.held.in_words}", file=sys.stderr, flush=True)
        self.pipe = load_placed(
            self.line.first_teacher.folder,
            self.held.placement,
            device=context.device,
            cache=context.prompt_cache,
            weights=self.held.weights,
        )
        yield from fill_caches(
            self.pipe,
            self.requests,
            self.line.card.original_fingerprint,
            context.store.workspace,
            context.stop,
            self.sets,
        )
        if self.sets.stopped:
            return
        self.sources = self.sets.open(self.pipe)
        free_text_encoders(self.pipe)
        self.load_models(context, self.pipe.transformer)

    def load(self, context: Context, sets: DataSets) -> None:
        """The same from finished caches, without the pipeline: only the first process has it."""
        self.sources = sets.open(None)
        self.held = self.choose_placement(context)
        first = self.line.first_teacher.folder
        self.load_models(context, load_teacher(first, context, self.held))

    def load_models(self, context: Context, first: nn.Module) -> None:
        """first: the transformer at the beginning of the chain, which is the teacher or the
        original.
        """
        self.teacher = first
        if self.line.original:
            assert self.held is not None
            self.original = (first, self.line.original[1])
            self.teacher = load_teacher(self.line.teacher.folder, context, self.held)
        # what a stage trains is brought to the device by the loop
        on_host = not self.spec.shard and any(by_itself(stage) for stage in self.stages.stages)
        device = "cpu" if on_host else context.device
        folder = self.line.student.folder
        stored = load_dtype(models.transformer_folder(folder), context.device, None)
        self.student = models.load_transformer(folder, device=device, dtype=stored)

    def choose_placement(self, context: Context) -> Choice:
        """How the teachers are held, beside the student."""
        sizes = block_sizes(self.line.student.folder, self.line.plan)
        beside = max(bytes_of_stage(stage, self.line.plan, sizes) for stage in self.stages.stages)
        if torch.device(context.device).type == "cpu":  # what waits on the host is here too
            beside = max(beside, (WEIGHT + GRADIENT) * sum(sizes.values()))
        if self.line.original:
            beside += sizes_of(self.line.teacher.folder, context.device, None).transformer
        return choose(
            self.spec.placement,
            [self.line.first_teacher.folder],
            device=context.device,
            beside=beside,
            interleaved=True,  # data of prompts are encoded and sampled batch by batch
            processes=self.spec.processes,
            streams=not self.spec.shard,
            weights=self.spec.teacher_weights,
        )

    def run(self, context: Context, resume: bool, processes: Processes) -> Iterator[Progress]:
        """The loop, started."""
        assert self.held is not None
        return distill(
            **self.trainees(),
            facts={**self.held.facts(), "sampling": vars(sampling_of_data(self.spec, self.line))},
            out=self.out,
            base=self.line.student.folder,
            resume=resume,
            stop=context.stop,
            save_now=partial(context.requested, "save"),
            keep=self.spec.keep_checkpoints,
            checkpoint_every=self.spec.checkpoint_every,
            processes=processes,
        )

    def trainees(self) -> dict[str, Any]:
        """What the loop trains, as its arguments; the timing of steps takes the same."""
        return {
            "student": self.student,
            "teacher": self.teacher,
            "plan": self.line.plan,
            "spec": self.stages,
            "source": self.sources[None],
            "sources": {name: source for name, source in self.sources.items() if name is not None},
            "scores": self.scores,
            "original": self.original,
            "gradient_checkpointing": self.spec.checkpointing,
        }


def by_itself(stage: Stage) -> bool:
    """Whether a stage trains blocks without running the others."""
    return stage.gradient == "span" and stage.inputs == "teacher"


def block_sizes(folder: Path, plan: Plan) -> dict[Place | None, int]:
    """Numbers of each block of a student, and of what is outside the blocks (None)."""
    sizes: dict[Place | None, int] = dict.fromkeys([None, *student_places(plan)], 0)
    for name, info in headers(models.transformer_folder(folder)).items():
        path = next((path for path in plan.stacks if name.startswith(f"{path}.")), None)
        place = None
        if path is not None:
            place = (path, int(name.removeprefix(f"{path}.").partition(".")[0]))
        sizes[place] += numel(list(info.shape))
    return sizes


def bytes_of_stage(stage: Stage, plan: Plan, sizes: Mapping[Place | None, int]) -> int:
    """Bytes of a student on its device while a stage trains it, without what is computed. What
    trains outside the blocks counts only with `train: all`.
    """
    trained = sum(sizes[place] for place in chosen_blocks(student_places(plan), plan, stage))
    if stage.train == "all":
        trained += sizes[None]
    resting = sizes[None] if by_itself(stage) else sum(sizes.values()) - trained
    moving = WEIGHT + GRADIENT + STATES[stage.optimizer_states]
    return trained * moving + resting * WEIGHT


def load_teacher(folder: Path, context: Context, held: Choice) -> nn.Module:
    return models.load_transformer(
        folder, device=context.device, streamed=held.placement.streamed, weights=held.weights
    )


def check_placement(spec: DistillVerbSpec) -> None:
    """Raises BadInput for streamed or packed blocks that are to be split between processes too,
    and for both at once.
    """
    check_weights(spec.placement, spec.teacher_weights)
    if spec.shard and spec.teacher_weights != AS_LOADED:
        raise BadInput(
            f"--teacher-weights {spec.teacher_weights} with --shard",
            "one of them: FSDP2 does not split packed weights",
            "leave one of them out",
        )
    if spec.shard and spec.placement != AUTO and PLACEMENTS[spec.placement].streamed:
        raise BadInput(
            f"--placement {spec.placement} with --shard",
            "one of them: both keep a teacher's blocks out of memory",
            "leave one of them out",
        )


def plans_over(line: Lineage) -> dict[str, Plan]:
    """The student's plans over its teachers, by Stage.teacher."""
    return {"parent": line.plan, "original": line.original[1] if line.original else line.plan}


# --- stages ---------------------------------------------------------------------------------------


def stages_of(spec: DistillVerbSpec) -> DistillSpec:
    """The stages to run, with --steps: of a file, of a recipe, or of the recipe `workbench`."""
    if spec.spec_file and spec.recipe:
        raise BadInput("both --recipe and --spec", "one of them", "leave one out")
    if spec.spec_file:
        stages = DistillSpec.load(spec.spec_file)
    else:
        stages = recipes.load(spec.recipe or "workbench").distill
    return with_steps(stages, spec.steps)


def with_steps(stages: DistillSpec, steps: int | None) -> DistillSpec:
    """The same stages with `steps` steps in all, shared as before; the last stage takes what
    rounding leaves.
    """
    total = stages.steps
    if steps is None or steps == total:
        return stages
    counts = [round(steps * stage.steps / total) if total else 0 for stage in stages.stages]
    counts[-1] += steps - sum(counts)
    return stages.with_stage_steps(counts)


# --- data -----------------------------------------------------------------------------------------


def data_requests(
    spec: DistillVerbSpec, line: Lineage, stages: DistillSpec
) -> dict[str | None, CacheRequest]:
    """The run's own data (None), and what its stages name."""
    sampling = sampling_of_data(spec, line)
    usual = CacheRequest(
        data="scenes" if line.student.bundled else "general",
        teacher=line.card.original,
        size=sampling.size,
        steps=sampling.steps,
        guidance=sampling.guidance,
        negative=sampling.negative,
        square=spec.square,
        count=spec.scenes,
    )
    named = dict.fromkeys(stage.data for stage in stages.stages if stage.data)
    return requests_of([None, *named], usual, spec.data)


def sampling_of_data(spec: DistillVerbSpec, line: Lineage) -> Sampling:
    """How the first teacher samples the latents of prompts; its steps set the noise levels."""
    teacher = line.first_teacher
    return teacher.sampled(spec.sampling_steps, None, spec.size, spec.negative)


def sampling_of(spec: DistillVerbSpec, line: Lineage) -> Sampling:
    return line.student.sampling.changed(spec.sampling_steps, None, spec.size, spec.negative)


# --- what stages scale by -------------------------------------------------------------------------


def scores_for(
    stages: DistillSpec, given: str | None, line: Lineage, store: Store
) -> Scores | None:
    """Sensitivity per teacher block, for stages that scale by it; None where none does.

    Of the given map, else the plan's, the newest of metric prediction, the bundled one. Raises
    BadInput for a map without scores of dropped blocks.
    """
    if given is None and all(stage.scale == "none" for stage in stages.stages):
        return None
    sensitivity = map_for_scores(given, line, store)
    if sensitivity is None:
        return None
    scores = plans.block_scores(sensitivity)
    if not scores:
        raise BadInput(
            f"the map of metric {sensitivity.metric} has no scores of dropped blocks",
            "a map with edit drop",
            "pass --sensitivity map.json, of `workbench profile`",
        )
    return scores


def map_for_scores(given: str | None, line: Lineage, store: Store) -> SensitivityMap | None:
    """The given map, else the plan's, else the teacher's newest of metric prediction."""
    if given:
        return named_map(given, store)
    of_plan = store.find("map", line.card.sensitivity) if line.card.sensitivity else None
    if of_plan is not None:
        return SensitivityMap.load(of_plan.path)
    return newest_map(line.teacher.description, store, lambda metric, edits: metric == "prediction")
