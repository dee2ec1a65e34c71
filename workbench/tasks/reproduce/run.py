"""`workbench reproduce`: the papers' tables on the bundled teacher, at equal size and training.

The work is a list of units (a map, a row, a comparison), each with the file that says it is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ...records import Comparison, Plan, Progress
from ...specs import CompareSpec, ReproduceSpec
from ..compare_checks import check_model
from ..context import Context
from ..launch import generator
from .report import GroupReport, all_results, read_group, write_page
from .row import RowWork
from .settings import FINALS, Folders, Settings, check_out
from .table import OURS, Group, Row, RowId, Table
from .tables import check_row_names, choose_rows, choose_tables
from .units import Queue, Unit, Work


def reproduce(spec: ReproduceSpec, context: Context) -> Work:
    """Result: rows [{table, row, parameters, score, low, high, retention, ..}], page, seconds."""
    tables = choose_tables(spec.table)
    check_row_names(tables, spec.only or [])
    out = Path(spec.out or context.store.workspace / "reports" / spec.table).absolute()
    run = Run.of(spec, replace(context, resume=True, folder=None), out, tables)
    check_out(out, spec, run.settings.minutes)
    for group in run.groups():
        check_model(group.teacher, context)  # a broken installation is reported before any work
    began = time.monotonic()
    queue = Queue(run.units, run.total, context.stop)
    yield from queue.run()
    if queue.stopped:
        return
    reports = run.reports()
    page = write_page(out, tables, reports, run.settings.minutes)
    result = {
        "rows": [row.to_data() for row in all_results(reports)],
        "page": str(page),
        "seconds": time.monotonic() - began,
        "minutes_a_row": run.settings.minutes,
    }
    yield Progress(step=run.total, total=run.total, message="done", result=result)


@dataclass(frozen=True)
class Chosen:
    """A group of a table, and those of its rows that are made."""

    table: str
    group: Group
    rows: tuple[Row, ...]

    @property
    def trained(self) -> int:
        """How many of the rows are trained."""
        return sum(bool(row.train) for row in self.rows)


@dataclass(frozen=True)
class Run:
    """Which units there are, from the tables and from what is done already."""

    chosen: list[Chosen]
    settings: Settings
    folders: Folders
    context: Context
    total: int  # in the progress bar

    @classmethod
    def of(
        cls, spec: ReproduceSpec, context: Context, out: Path, tables: Mapping[str, Table]
    ) -> Run:
        chosen: list[Chosen] = []
        for name, table in tables.items():
            rows = choose_rows(table, spec.only or [], spec.quick)
            for group in table.groups:
                if rows[group.name]:
                    chosen.append(Chosen(name, group, rows[group.name]))
        count = sum(len(each.rows) for each in chosen)
        count += sum(
            2 * FINALS for each in chosen if has_finals(each, not (spec.no_finals or spec.quick))
        )
        trained = sum(each.trained for each in chosen)
        settings = Settings.of(spec, max(count, 1), trained)
        return cls(chosen, settings, Folders(out), context, max(count, 1))

    def groups(self) -> list[Group]:
        return [each.group for each in self.chosen]

    def units(self) -> list[Unit]:
        """All that is known to be needed: every group's rows and comparison, then the finals of the
        groups that have been compared.
        """
        units: list[Unit] = []
        for each in self.chosen:
            units += self.group_units(each, each.rows, "comparison", self.settings.minutes, 1)
        for each in self.chosen:
            file = self.comparison_file(each, "comparison")
            if has_finals(each, self.settings.finals) and file.exists():
                rows = self.finalists(each)
                minutes = self.settings.minutes * FINALS
                units += self.group_units(each, rows, "comparison-finals", minutes, FINALS)
        return units

    def group_units(
        self, each: Chosen, rows: Sequence[Row], comparison: str, minutes: float, weight: int
    ) -> Iterator[Unit]:
        """The maps that rows read, the rows, and their comparison. weight: of a row."""
        for row in rows:
            work = RowWork(each.table, each.group, row, self.settings, self.folders, minutes)
            map_file = work.map_file()
            if map_file is not None:
                label = f"{each.group.teacher}, map of {work.metric()}"
                yield Unit(label, map_file, (), 0, partial(work.measure, self.context))
            yield Unit(
                label=f"{each.group.name}, {row.name}",
                file=work.folder / "row.json",
                needs=work.needs(),
                weight=weight,
                work=partial(work.make, self.context),
            )
        yield Unit(
            label=f"{each.group.name}, comparing",
            file=self.comparison_file(each, comparison),
            needs=tuple(self.row_folder(each, row) / "row.json" for row in rows),
            weight=0,
            work=partial(self.compare, each, rows, comparison),
        )

    def row_folder(self, each: Chosen, row: Row) -> Path:
        return self.folders.row(each.table, RowId(each.group.name, row.name))

    def comparison_file(self, each: Chosen, name: str) -> Path:
        return self.folders.group(each.table, each.group.name) / name / "comparison.json"

    def compare(self, each: Chosen, rows: Sequence[Row], name: str) -> Work:
        """Teacher and students on the same scenes and noise."""
        students = [str(self.folders.student(self.row_folder(each, row))) for row in rows]
        spec = CompareSpec(
            models=[each.group.teacher, *students],
            names=["teacher", *(row.name for row in rows)],
            out=str(self.comparison_file(each, name).parent),
            suite="scenes",
            scorers=["scenes"],
            prompts_per_category=self.settings.prompts_per_category,
            sampling_steps=self.settings.sampling_steps,
        )
        yield from generator("compare", spec, self.context)

    def finalists(self, each: Chosen) -> list[Row]:
        """Our recipe, and the best of the others with another plan or another training; they train
        longer.
        """
        comparison = Comparison.load(self.comparison_file(each, "comparison"))
        students = sorted(comparison.models[1:], key=lambda model: -model.scores["scenes"].overall)
        rows = {row.name: row for row in each.rows}
        names = [model.name for model in students if model.name != OURS]
        if OURS in rows:
            ours = self.made_of(each, rows[OURS])
            others = [name for name in names if self.made_of(each, rows[name]) != ours]
            names = [OURS, *others[:1]]
        about = f"{FINALS} times the training"
        return [replace(rows[name], name=f"{name}, {FINALS} x", about=about) for name in names[:2]]

    def made_of(self, each: Chosen, row: Row) -> tuple[object, str]:
        """The spans of a row's plan, and the recipe that trains it."""
        return Plan.load(self.row_folder(each, row) / "plan.yaml").stacks, row.train

    def reports(self) -> dict[str, list[GroupReport]]:
        """What was compared, by table."""
        reports: dict[str, list[GroupReport]] = {}
        for each in self.chosen:
            files = [self.comparison_file(each, "comparison")]
            if self.comparison_file(each, "comparison-finals").exists():
                files.append(self.comparison_file(each, "comparison-finals"))
            reports.setdefault(each.table, []).append(read_group(each.table, each.group, files))
        return reports


def has_finals(each: Chosen, finals: bool) -> bool:
    return finals and each.group.finals and len(each.rows) > 1
