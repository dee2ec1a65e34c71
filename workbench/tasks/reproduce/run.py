"""The kind that reproduces: the papers' tables on the bundled teacher, every row at equal size and
equal training.

The work is a list of units (a map, a row, a comparison), each with the file that says it is done. A
stopped run goes on with the unit it was in; several processes, on one machine or on many with a
common folder, each take the next unit that nobody holds.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ... import rules
from ...recipes import recipe as recipes
from ...records import BadInput, Card, DistillSpec, Plan, Progress, write_atomic
from ...specs import BuildSpec, ProfileSpec
from ...workspace.processes import try_lock
from ..build import build
from ..compare import compare
from ..context import Context
from ..distill import distill
from ..info import describe
from ..plan import plan, rule_measures
from ..profile import profile
from . import report as reporting
from .tables import TINY, Group, Row, Table, chosen, wanted

FULL, QUICK = 10.0, 10.0  # minutes of training a row; minutes in all
FINALS = 6  # times the training of a row
FULL_PROMPTS, QUICK_PROMPTS = 40, 2  # per category
QUICK_STEPS = 10  # of sampling; in full as many as the suite says
FULL_SCENES, QUICK_SCENES = 8192, 1024  # to train on
QUICK_MAP, QUICK_PLAN = {"timesteps": 2}, {"timesteps": 1, "shortlist": 4}  # what is measured on
OVERHEAD = 14.0  # seconds a row beside its training, on the bundled teacher, in a quick run
WAIT = 2.0  # seconds between looks at what others hold

Work = Iterator[Progress]


def reproduce(spec: dict[str, Any], context: Context) -> Work:
    """spec: table (amber | hierarchicalprune | ppcl | all), quick, minutes (of training a row),
    prompts_per_category, steps, scenes (to train on), only (row names), out. Result: rows [{table,
    row, parameters, score, low, high, retention}], page."""
    tables = chosen(spec["table"])
    out = Path(spec.get("out") or context.store.workspace / "reports" / spec["table"]).absolute()
    run = Run(spec, replace(context, resume=True, folder=None), out, tables)
    check_out(
        out,
        {key: spec.get(key) for key in ("table", "quick", "prompts_per_category", "steps")}
        | {"minutes": run.minutes},
    )
    began = time.monotonic()
    yield from run.units_left()
    if run.stopped:
        return
    groups = [(name, g, files) for name, g in run.groups() if (files := run.comparisons(name, g))]
    rows = [row for name, group, files in groups for row in reporting.results(name, group, files)]
    page = reporting.write_page(
        out, tables, rows, {f"{name} {g.name}": files for name, g, files in groups}, run.minutes
    )
    yield Progress(
        step=run.total,
        total=run.total,
        message="done",
        result={
            "rows": rows,
            "page": str(page),
            "seconds": time.monotonic() - began,
            "minutes_a_row": run.minutes,
        },
    )


def check_out(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that is no report, or one of other settings; make it a report of these."""
    told = out / "report.json"
    if out.exists() and not told.exists() and any(out.iterdir()):
        raise BadInput(
            f"{out} exists and is no report (no report.json)",
            "a new folder, or a report to go on with",
            "choose another -o",
        )
    if told.exists() and json.loads(told.read_text("utf-8"))["settings"] != settings:
        raise BadInput(
            f"{out} holds a report of other settings",
            "the same table, minutes and prompts",
            "choose another -o",
        )
    write_atomic(told, json.dumps({"settings": settings}))


@dataclass(frozen=True)
class Unit:
    """A piece of the work: done when `file` exists, possible when all that it `needs` exist."""

    label: str
    file: Path
    needs: tuple[Path, ...]
    weight: int  # in the progress bar
    work: Callable[[], Work]

    @property
    def done(self) -> bool:
        return self.file.exists()

    def taken(self) -> int | None:
        """The lock, where nobody else holds the unit and it is still to be done. Close it to let
        go.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.file.parent / f".{self.file.name}.lock")
        if lock is not None and self.done:  # another has just finished it
            os.close(lock)
            return None
        return lock


def plan_options(row: Row, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A row's flags of the plan; a quick run asks less of a rule that measures."""
    less = spec.get("quick") and rule_measures(row.plan.get("rule"), row.plan.get("recipe"))
    return {**row.plan, **(QUICK_PLAN if less else {})}


@dataclass
class Run:
    """The units of all tables, one after the other as one progress; stops when one was stopped."""

    spec: dict[str, Any]
    context: Context
    out: Path
    tables: dict[str, Table]
    stopped: bool = False

    def __post_init__(self) -> None:
        only, quick = self.spec.get("only") or (), bool(self.spec.get("quick"))
        self.rows = {
            (name, group): rows
            for name, table in self.tables.items()
            for group, rows in wanted(table, only, quick).items()
        }
        count = sum(len(rows) for rows in self.rows.values()) + sum(
            2 * FINALS for name, g in self.groups() if self.has_finals(name, g)
        )
        self.total = max(count, 1)
        rows = sum(bool(row.train) for rows in self.rows.values() for row in rows)
        spare = max(60 * QUICK - OVERHEAD * self.total, 0) / 60
        self.minutes = (
            float(self.spec["minutes"])
            if self.spec.get("minutes") is not None
            else round(spare / max(rows, 1), 3)
            if self.spec.get("quick")
            else FULL
        )

    def groups(self) -> list[tuple[str, Group]]:
        return [
            (name, group)
            for name, table in self.tables.items()
            for group in table.groups
            if self.rows[name, group.name]
        ]

    def has_finals(self, table: str, group: Group) -> bool:
        return group.finals and not self.spec.get("quick") and len(self.rows[table, group.name]) > 1

    # --- units

    def units_left(self) -> Work:
        """Do what is left, or wait for those who do it."""
        while left := [unit for unit in self.units() if not unit.done]:
            ready = (u for u in left if all(file.exists() for file in u.needs))
            unit, lock = next(
                ((u, lock) for u in ready if (lock := u.taken()) is not None), (None, None)
            )
            if unit is None or lock is None:
                yield self.said(f"others are at {', '.join(u.label for u in left[:3])}")
                time.sleep(WAIT)
                self.stopped = self.context.stop()
            else:
                try:
                    yield from unit.work()
                finally:
                    os.close(lock)
            if self.stopped:
                return
            yield self.said(f"{unit.label}: made" if unit else "waiting")

    def said(self, message: str) -> Progress:
        return Progress(
            step=min(sum(u.weight for u in self.units() if u.done), self.total),
            total=self.total,
            message=message,
        )

    def units(self) -> Iterator[Unit]:
        """All that is known to be done: every group's rows and comparison, then the finals of those
        that have been compared.
        """
        for name, group in self.groups():
            folder, rows = self.out / name / slug(group.name), self.rows[name, group.name]
            yield from self.row_units(folder, group, rows, self.minutes, 1)
            yield self.comparison(folder / "comparison", group, rows)
        for name, group in self.groups():
            folder = self.out / name / slug(group.name)
            compared = folder / "comparison" / "comparison.json"
            if self.has_finals(name, group) and compared.exists():
                finals = finalists(group, reporting.results(name, group, [compared]), folder)
                yield from self.row_units(folder, group, finals, self.minutes * FINALS, FINALS)
                yield self.comparison(folder / "comparison-finals", group, finals)

    def row_units(
        self, folder: Path, group: Group, rows: Sequence[Row], minutes: float, weight: int
    ) -> Iterator[Unit]:
        for row in rows:
            found = self.map_of(group.teacher, row)
            if found is not None:
                label = f"{group.teacher}, map of {found.stem}"
                given = {"teacher": group.teacher, "metric": found.stem, "out": str(found)} | (
                    QUICK_MAP if self.spec.get("quick") else {}
                )
                yield Unit(
                    label,
                    found,
                    (),
                    0,
                    partial(self.profiled, label, given),
                )
            needs = [found] if found else []
            needs += [folder / slug(row.start) / "row.json"] if row.start else []
            needs += [self.below(folder, row) / "row.json"] if row.on else []
            yield Unit(
                f"{group.name}, {row.name}",
                folder / slug(row.name) / "row.json",
                tuple(needs),
                weight,
                partial(self.row, folder, group, row, minutes),
            )

    def profiled(self, label: str, spec: dict[str, Any]) -> Iterator[Progress]:
        return self.kind(label, profile(ProfileSpec.parse(spec), self.context))

    def comparison(self, out: Path, group: Group, rows: Sequence[Row]) -> Unit:
        needs = tuple(out.parent / slug(row.name) / "row.json" for row in rows)
        return Unit(
            f"{group.name}, comparing",
            out / "comparison.json",
            needs,
            0,
            lambda: self.compared(group, out, rows),
        )

    def comparisons(self, table: str, group: Group) -> list[Path]:
        folder = self.out / table / slug(group.name)
        return [
            file
            for name in ("comparison", "comparison-finals")
            if (file := folder / name / "comparison.json").exists()
        ]

    # --- what a unit does

    def row(self, folder: Path, group: Group, row: Row, minutes: float) -> Work:
        """Plan, build, train; then `row.json` names the student's folder."""
        where, label = folder / slug(row.name), f"{group.name}, {row.name}"
        planned, built, trained = where / "plan.yaml", where / "built", where / "student"
        base = student_of(self.out, folder / slug(row.start)) if row.start else built
        if not row.start and not planned.exists():
            yield from self.kind(
                label, plan(self.planned(folder, group, row, planned), self.context)
            )
        if not row.start and not self.stopped and not (built / "card.json").exists():
            yield from self.kind(
                label, build(BuildSpec(plan=str(planned), out=str(built)), self.context)
            )
        if row.int4 and not self.stopped:
            rounded(base, trained)
        elif row.train and not self.stopped and not (trained / "card.json").exists():
            start = folder / slug(row.start) / "built" if row.start else built
            given = {
                "student": str(start),
                "spec": training(row).model_dump(mode="json"),
                "minutes": minutes,
                "out": str(trained),
                "watch": 0,
                **self.training_flags(group),
            }
            yield from self.kind(label, distill(given, self.context))
        if not self.stopped:
            final = trained if (trained / "card.json").exists() else base
            about = {
                "row": row.name,
                "student": str(final.relative_to(self.out)),
                "minutes": minutes if row.train else 0,
            }
            write_atomic(where / "row.json", json.dumps(about))

    def training_flags(self, group: Group) -> dict[str, Any]:
        """Scenes to train on; and in full what makes the rows' minutes worth the same. A quick run
        keeps to the clock instead.
        """
        if self.spec.get("quick"):
            return {"scenes": self.spec.get("scenes") or QUICK_SCENES}
        return {
            "scenes": self.spec.get("scenes") or FULL_SCENES,
            "reference": str(self.out / f"pace-{group.teacher}.json"),
        }

    def map_of(self, teacher: str, row: Row) -> Path | None:
        """The map a row's rule reads, where no map of that metric ships."""
        rule = rules.RULES.get(str(row.plan.get("rule")))
        own = rule is not None and rule.metric in rules.OWN_METRIC
        return (
            self.out / "maps" / teacher / f"{rule.metric}.json"
            if rule is not None and own
            else None
        )

    def below(self, folder: Path, row: Row) -> Path:
        """The folder of the row whose student a second step works on."""
        assert row.on is not None
        return folder.parent / slug(row.on[0]) / slug(row.on[1])

    def planned(self, folder: Path, group: Group, row: Row, out: Path) -> dict[str, Any]:
        """The flags of the plan; shares of the depth become blocks."""
        found = self.map_of(group.teacher, row)
        teacher = str(student_of(self.out, self.below(folder, row))) if row.on else group.teacher
        flags = {
            "teacher": teacher,
            "out": str(out),
            **({"sensitivity": str(found)} if found else {}),
            **plan_options(row, self.spec),
        }
        if 0 < flags.get("keep", 0) < 1:
            flags["keep"] = round(
                flags["keep"] * describe(group.teacher, self.context.store).stacks[0].depth
            )
        return flags

    def compared(self, group: Group, out: Path, rows: Sequence[Row]) -> Work:
        """Teacher and students on the same scenes and noise."""
        students = {row.name: student_of(self.out, out.parent / slug(row.name)) for row in rows}
        prompts, steps = (
            (QUICK_PROMPTS, QUICK_STEPS) if self.spec.get("quick") else (FULL_PROMPTS, None)
        )
        given = {
            "models": [group.teacher, *map(str, students.values())],
            "names": ["teacher", *students],
            "suite": "scenes",
            "scorers": ["scenes"],
            "prompts_per_category": self.spec.get("prompts_per_category") or prompts,
            "steps": self.spec.get("steps") or steps,
            "out": str(out),
        }
        yield from self.kind(f"{group.name}, comparing", compare(given, self.context))

    def kind(self, label: str, work: Work) -> Work:
        """Pass on a kind's progress under the unit's name; `stopped` where it ended without a
        result.
        """
        finished, step = False, self.said("").step
        for progress in work:
            finished = progress.result is not None
            yield Progress(
                step=step,
                total=self.total,
                message=f"{label}: {progress.message} {progress.step}/{progress.total}",
            )
        self.stopped = not finished


def student_of(out: Path, folder: Path) -> Path:
    """The student that a row ended with."""
    return out / json.loads((folder / "row.json").read_text("utf-8"))["student"]


def training(row: Row) -> DistillSpec:
    """The recipe's stages with the step sizes that suit the bundled teacher."""
    spec = recipes.load(row.train).distill
    stages = [
        stage.model_copy(update={**(TINY if row.train != "workbench" else {}), **row.changes})
        for stage in spec.stages
    ]
    return spec.model_copy(update={"stages": stages})


def finalists(group: Group, results: list[dict[str, Any]], folder: Path) -> list[Row]:
    """`workbench` and the best of the others that has another plan or another training, to be
    trained longer.
    """
    rows = {row.name: row for row in group.rows}

    def made_of(name: str) -> tuple[Any, ...]:
        return Plan.load(folder / slug(name) / "plan.yaml").stacks, rows[name].train

    others = [
        r["row"] for r in sorted(results, key=lambda r: -r["score"]) if r["row"] != reporting.OURS
    ]
    if reporting.OURS in rows:
        others = [name for name in others if made_of(name) != made_of(reporting.OURS)]
    names = [*([reporting.OURS] if reporting.OURS in rows else []), *others[:1]]
    return [
        replace(rows[name], name=f"{name}, {FINALS} x", about=f"{FINALS} times the training")
        for name in names
    ]


def rounded(student: Path, out: Path) -> None:
    """The student with the Linear weights of its blocks rounded to 4 bits and back: the quality of
    INT4, not its size.
    """
    from ... import models
    from ...distillation import write_weights
    from ...students.int4 import FORMAT, int4_state

    transformer = models.load_transformer(student)
    for stack in models.blocks_of(transformer).values():
        for block in stack:
            block.load_state_dict(int4_state(block))
    shutil.rmtree(out, ignore_errors=True)
    write_weights(transformer.state_dict(), student, out)
    card = Card.load(student / "card.json")
    card.model_copy(update={"metrics": {**card.metrics, "rounded": FORMAT}}).save(out / "card.json")


def slug(text: str) -> str:
    """A folder's name: letters, digits and dashes."""
    return "-".join(
        "".join(
            c if c.isalnum() else " " for c in text.replace("%", "percent").replace("+", "plus")
        ).split()
    ).lower()
