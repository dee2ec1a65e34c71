"""One row: its student planned, built, trained or rounded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ... import models
from ...distillation.folder import write_weights
from ...recipes import table as recipes
from ...records import Card, DistillSpec, Progress
from ...rules import RULES
from ...specs import BuildSpec, DistillVerbSpec, PlanSpec, ProfileSpec
from ...students.int4 import FORMAT, int4_state
from ..context import Context
from ..demo import LEAST_MINUTES, MANY_STEPS
from ..launch import generator
from ..plan import rule_measures
from ..resolve import resolve
from .settings import Folders, Settings
from .table import OPTIMIZER, OURS, Group, Row, RowId

QUICK_MAP = {"timesteps": 2}  # what a quick run measures on
QUICK_PLAN = {"timesteps": 1, "shortlist": 4}


@dataclass(frozen=True)
class RowWork:
    """Everything that a row's student is made from. minutes: of training."""

    table: str
    group: Group
    row: Row
    settings: Settings
    folders: Folders
    minutes: float

    @property
    def folder(self) -> Path:
        return self.folders.row(self.table, RowId(self.group.name, self.row.name))

    @property
    def start_folder(self) -> Path:
        """The folder of the row that this one starts from."""
        return self.folders.row(self.table, RowId(self.group.name, self.row.start))

    @property
    def built(self) -> Path:
        """The student before training."""
        return (self.start_folder if self.row.start else self.folder) / "built"

    def needs(self) -> tuple[Path, ...]:
        """The files that must be there first."""
        files = []
        if self.map_file() is not None:
            files.append(self.map_file())
        if self.row.start:
            files.append(self.start_folder / "row.json")
        if self.row.second_step_of is not None:
            files.append(self.folders.row(self.table, self.row.second_step_of) / "row.json")
        return tuple(file for file in files if file is not None)

    def metric(self) -> str:
        """The metric whose map the row's rule reads, if no such map is bundled; else ""."""
        if self.row.plan is None or self.row.plan.rule is None:
            return ""
        rule = RULES[self.row.plan.rule]
        return rule.metric if rule.only_metric and rule.metric else ""

    def map_file(self) -> Path | None:
        return self.folders.map(self.group.teacher, self.metric()) if self.metric() else None

    def measure(self, context: Context) -> Iterator[Progress]:
        """Write the map that the row's rule reads."""
        spec = ProfileSpec(
            teacher=self.group.teacher, metric=self.metric(), out=str(self.map_file())
        )
        if self.settings.quick:
            spec = spec.model_copy(update=QUICK_MAP)
        yield from generator("profile", spec, context)

    def make(self, context: Context) -> Iterator[Progress]:
        """Plan, build, train or round; then row.json names the student. Ends without row.json where
        it is stopped.
        """
        if self.row.plan is not None:
            yield from self.build(context)
            if not (self.built / "card.json").exists():
                return
        student = self.built
        if self.row.int4:
            student = self.folder / "student"
            round_weights(self.folders.student(self.start_folder), student)
        elif self.row.train:
            student = self.folder / "student"
            yield from self.train(student, context)
            if not (student / "card.json").exists():
                return
        self.folders.write_row(self.folder, self.row, student, self.minutes)

    def build(self, context: Context) -> Iterator[Progress]:
        file = self.folder / "plan.yaml"
        if not file.exists():
            yield from generator("plan", self.plan_spec(context), context)
        if file.exists() and not (self.built / "card.json").exists():
            yield from generator("build", BuildSpec(plan=str(file), out=str(self.built)), context)

    def plan_spec(self, context: Context) -> PlanSpec:
        """The row's plan with its teacher, map and output; a share of the depth becomes blocks."""
        assert self.row.plan is not None
        teacher = self.group.teacher
        changes: dict[str, object] = {"out": str(self.folder / "plan.yaml"), "teacher": teacher}
        if self.row.keep_share is not None:
            depth = resolve(teacher, context.store).description.stacks[0].depth
            changes["keep"] = round(self.row.keep_share * depth)
        if self.row.second_step_of is not None:
            first = self.folders.row(self.table, self.row.second_step_of)
            changes["teacher"] = str(self.folders.student(first))
        if self.map_file() is not None:
            changes["sensitivity"] = str(self.map_file())
        changes |= quick_changes(self.row.plan, self.settings.quick)
        return self.row.plan.model_copy(update=changes)

    def train(self, out: Path, context: Context) -> Iterator[Progress]:
        """Train for the row's minutes, whatever steps the recipe has."""
        if (out / "card.json").exists():
            return
        stages = training(self.row).save(self.folder / "distill.yaml")
        spec = DistillVerbSpec(
            student=str(self.built),
            spec_file=str(stages),
            steps=MANY_STEPS,
            minutes=max(self.minutes, LEAST_MINUTES),
            out=str(out),
            watch=0,
            scenes=self.settings.scenes,
        )
        if not self.settings.quick:  # a quick run keeps to the clock instead
            context = replace(context, pace_file=self.folders.pace(self.group.teacher))
        yield from generator("distill", spec, context)


def quick_changes(plan: PlanSpec, quick: bool) -> dict[str, int]:
    """A quick run lets rules that measure measure less."""
    return QUICK_PLAN if quick and rule_measures(plan.rule, plan.recipe) else {}


def training(row: Row) -> DistillSpec:
    """The recipe's stages with the step sizes that suit the bundled teacher."""
    spec = recipes.load(row.train).distill
    optimizer = {} if row.train == OURS else OPTIMIZER
    changes = {**optimizer, **row.changes}
    stages = [stage.model_copy(update=changes) for stage in spec.stages]
    return spec.model_copy(update={"stages": stages})


def round_weights(student: Path, out: Path) -> None:
    """The student with the Linear weights of its blocks rounded to 4 bits and back: the quality of
    INT4, not its size.
    """
    transformer = models.load_transformer(student)
    for stack in models.blocks_of(transformer).values():
        for block in stack:
            block.load_state_dict(int4_state(block))
    shutil.rmtree(out, ignore_errors=True)
    write_weights(transformer.state_dict(), student, out)
    card = Card.load(student / "card.json")
    card.model_copy(update={"metrics": {**card.metrics, "rounded": FORMAT}}).save(out / "card.json")
