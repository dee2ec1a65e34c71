"""The kind that reproduces: the papers' tables on the bundled teacher, every row at equal size and equal training.

Each row has a folder with its plan, its student and, once done, `row.json`; a stopped run goes on with the row it was in.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .. import rules
from ..records import BadInput, Card, Comparison, DistillSpec, Progress, write_atomic
from ..rules import recipes
from . import Context
from .comparing import compare
from .planning import build, plan
from .profiling import profile
from .tables import TINY, Group, Row, Table, chosen
from .teachers import describe
from .training import distill

FULL, QUICK = 10.0, 10.0  # minutes of training a row; minutes in all
FINALS = 6  # times the training of a row
FULL_PROMPTS, QUICK_PROMPTS = 40, 3  # per category
OVERHEAD = 14.0  # seconds a row beside its training, on the bundled teacher, in a quick run


def reproduce(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: table (amber | hierarchicalprune | ppcl | all), quick, minutes (of training a row), prompts_per_category, steps, scenes
    (to train on), only (row names), out. Result: rows [{table, row, parameters, score, low, high, retention}], page."""
    tables = chosen(spec["table"])
    out = Path(spec.get("out") or context.store.workspace / "reports" / spec["table"]).absolute()
    if out.exists() and not (out / "report.json").exists() and any(out.iterdir()):
        raise BadInput(f"{out} exists and is no report (no report.json)", "a new folder, or a report to go on with", "choose another -o")
    run = Run(spec, replace(context, resume=True), out, tables)
    settings = {key: spec.get(key) for key in ("table", "quick", "prompts_per_category", "steps")} | {"minutes": run.minutes}
    if (out / "report.json").exists() and json.loads((out / "report.json").read_text("utf-8"))["settings"] != settings:
        raise BadInput(f"{out} holds a report of other settings", "the same table, minutes and prompts", "choose another -o")
    write_atomic(out / "report.json", json.dumps({"settings": settings}))
    began = time.monotonic()
    for name, table in tables.items():
        for group in table.groups:
            yield from run.group(name, group)
            if run.stopped:
                return
    page = write_page(out, tables, run.rows, run.pages, run.minutes)
    yield Progress(step=run.total, total=run.total, message="done", result={
        "rows": run.rows, "page": str(page), "seconds": time.monotonic() - began, "minutes_a_row": run.minutes})


@dataclass
class Run:
    """Rows one after the other as one progress; stops when one was stopped."""

    spec: dict[str, Any]
    context: Context
    out: Path
    tables: dict[str, Table]
    rows: list[dict[str, Any]] = field(default_factory=list)
    pages: dict[str, Path] = field(default_factory=dict)
    stopped: bool = False
    at: int = 0

    def __post_init__(self) -> None:
        groups = [g for table in self.tables.values() for g in table.groups]
        count = sum(len(self.wanted(g)) + (2 * FINALS if g.finals and not self.spec.get("quick") else 0) for g in groups)
        self.total = max(count, 1)
        rows = sum(bool(row.train) for g in groups for row in self.wanted(g))
        spare = max(60 * QUICK - OVERHEAD * self.total, 0) / 60
        self.minutes = float(self.spec["minutes"]) if self.spec.get("minutes") is not None else \
            round(spare / max(rows, 1), 3) if self.spec.get("quick") else FULL

    def wanted(self, group: Group) -> list[Row]:
        only = self.spec.get("only")
        return [row for row in group.rows if not only or row.name in only or any(r.start == row.name for r in group.rows if r.name in only)]

    def group(self, table: str, group: Group) -> Iterator[Progress]:
        """Every row, the comparison, and the finals, compared anew."""
        folder = self.out / table / slug(group.name)
        made: dict[str, Path] = {}
        for row in self.wanted(group):
            yield from self.row(folder, group, row, made, self.minutes)
            if self.stopped:
                return
        yield from self.compared(table, group, folder / "comparison", made)
        if group.finals and not self.spec.get("quick") and not self.stopped and len(made) > 1:
            for row in finalists(group, [r for r in self.rows if r["table"] == table and r["group"] == group.name]):
                yield from self.row(folder, group, row, made, self.minutes * FINALS, weight=FINALS)
                if self.stopped:
                    return
            self.rows = [r for r in self.rows if (r["table"], r["group"]) != (table, group.name)]
            yield from self.compared(table, group, folder / "comparison-finals", made)

    def row(self, folder: Path, group: Group, row: Row, made: dict[str, Path], minutes: float, weight: int = 1) -> Iterator[Progress]:
        """Plan, build, train; `made` gets the student's folder."""
        where = folder / slug(row.name)
        done, planned, built, trained = where / "row.json", where / "plan.yaml", where / "built", where / "student"
        label = f"{group.name}, {row.name}"
        if not done.exists():
            base = made.get(row.start)
            if base is None:
                if not planned.exists():
                    yield from self.map(group.teacher, row)
                if not planned.exists() and not self.stopped:
                    yield from self.kind(label, plan(self.planned(group, row, planned), self.context), weight)
                if not self.stopped and not (built / "card.json").exists():
                    yield from self.kind(label, build({"plan": str(planned), "out": str(built)}, self.context), weight)
            base = base or built
            if row.int4 and not self.stopped:
                rounded(base, trained)
            elif row.train and not self.stopped and not (trained / "card.json").exists():
                start = base if base == built else folder / slug(row.start) / "built"
                wanted = {"student": str(start), "spec": training(row).model_dump(mode="json"), "minutes": minutes, "out": str(trained),
                          "scenes": self.spec.get("scenes")}
                yield from self.kind(label, distill(wanted, self.context), weight)
            if self.stopped:
                return
            final = trained if (trained / "card.json").exists() else base
            about = {"row": row.name, "student": str(final.relative_to(self.out)), "minutes": minutes if row.train else 0}
            write_atomic(done, json.dumps(about))
        made[row.name] = self.out / json.loads(done.read_text("utf-8"))["student"]
        self.at = min(self.at + weight, self.total)
        yield Progress(step=self.at, total=self.total, message=f"{label}: made")

    def map(self, teacher: str, row: Row) -> Iterator[Progress]:
        """Measure what the row's rule reads, where no map of that metric ships."""
        out = self.map_of(teacher, row)
        if out is not None and not out.exists():
            wanted = {"teacher": teacher, "metric": out.stem, "timesteps": 4, "prompts": None, "out": str(out)}
            yield from self.kind(f"{teacher}, map of {out.stem}", profile(wanted, self.context), 0)

    def map_of(self, teacher: str, row: Row) -> Path | None:
        rule = rules.RULES.get(str(row.plan.get("rule")))
        own = rule is not None and rule.metric in rules.OWN_METRIC
        return self.out / "maps" / teacher / f"{rule.metric}.json" if rule is not None and own else None

    def planned(self, group: Group, row: Row, out: Path) -> dict[str, Any]:
        """The flags of the plan; shares of the depth become blocks."""
        found = self.map_of(group.teacher, row)
        flags = {"teacher": group.teacher, "out": str(out), **({"sensitivity": str(found)} if found else {}), **row.plan}
        if 0 < flags.get("keep", 0) < 1:
            flags["keep"] = round(flags["keep"] * describe(group.teacher, self.context.store).stacks[0].depth)
        return flags

    def compared(self, table: str, group: Group, out: Path, made: dict[str, Path]) -> Iterator[Progress]:
        """Teacher and students on the same scenes and noise; adds the rows' results."""
        quick = bool(self.spec.get("quick"))
        prompts = self.spec.get("prompts_per_category") or (QUICK_PROMPTS if quick else FULL_PROMPTS)
        wanted = {"models": [group.teacher, *map(str, made.values())], "names": ["teacher", *made], "suite": "scenes",
                  "scorers": ["scenes"], "prompts_per_category": prompts, "steps": self.spec.get("steps"), "out": str(out)}
        if not (out / "comparison.json").exists():
            yield from self.kind(f"{group.name}, comparing", compare(wanted, self.context), 0)
        if self.stopped:
            return
        self.pages[f"{table} {group.name}"] = out / "index.html"
        teacher, *students = Comparison.load(out / "comparison.json").models
        for model in students:
            score = model.scores["scenes"]
            kept = {"table": table, "group": group.name, "row": model.name, "teacher": group.teacher, "parameters": model.parameters,
                    "ratio": model.parameters / teacher.parameters, "score": score["overall"], "low": score["low"], "high": score["high"],
                    "retention": model.retention["scenes"], "difference": model.difference.get("scenes")}
            self.rows.append(kept)

    def kind(self, label: str, work: Iterator[Progress], weight: int) -> Iterator[Progress]:
        """Pass on a kind's progress under the row's name; `stopped` where it ended without a result."""
        finished = False
        for progress in work:
            finished = progress.result is not None
            yield Progress(step=self.at, total=self.total, message=f"{label}: {progress.message} {progress.step}/{progress.total}")
        self.stopped = not finished


def training(row: Row) -> DistillSpec:
    """The recipe's stages with the step sizes that suit the bundled teacher."""
    spec = recipes.load(row.train).distill
    stages = [stage.model_copy(update={**(TINY if row.train != "workbench" else {}), **row.changes}) for stage in spec.stages]
    return spec.model_copy(update={"stages": stages})


def finalists(group: Group, results: list[dict[str, Any]]) -> list[Row]:
    """`workbench` and the best of the others, to be trained longer."""
    others = sorted((r for r in results if r["row"] != "workbench"), key=lambda r: -r["score"])
    names = ["workbench", *(r["row"] for r in others[:1])]
    rows = {row.name: row for row in group.rows}
    return [replace(rows[name], name=f"{name}, {FINALS} x", about=f"{FINALS} times the training") for name in names if name in rows]


def rounded(student: Path, out: Path) -> None:
    """The student with the Linear weights of its blocks rounded to 4 bits and back: the quality of INT4, not its size."""
    from .. import models
    from ..distill import write_weights
    from ..fakequant import FORMAT, int4_state

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
    return "-".join("".join(c if c.isalnum() else " " for c in text.replace("%", "percent").replace("+", "plus")).split()).lower()


def write_page(out: Path, tables: dict[str, Table], rows: list[dict[str, Any]], pages: dict[str, Path], minutes: float) -> Path:
    """One HTML page without outside requests, and the same as Markdown and JSON."""
    source = (resources.files("workbench") / "reproduction.html.jinja").read_text("utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(source)
    links = {key: path.relative_to(out).as_posix() for key, path in pages.items()}
    write_atomic(out / "index.html", template.render(tables=tables, rows=rows, pages=links, minutes=minutes))
    write_atomic(out / "rows.json", json.dumps({"rows": rows}, indent=1) + "\n")
    write_atomic(out / "results.md", markdown(tables, rows))
    return out / "index.html"


def markdown(tables: dict[str, Table], rows: list[dict[str, Any]]) -> str:
    """The tables as Markdown, for docs/results.md."""
    lines = []
    for name, table in tables.items():
        lines += [f"### {table.title} (arXiv {table.paper})", "", "| | row | parameters | share | score | 95 % interval | of the teacher |",
                  "|---|---|---:|---:|---:|---:|---:|"]
        for r in (row for row in rows if row["table"] == name):
            kept = "" if r["retention"] is None else f"{100 * r['retention']:.1f} %"
            lines.append(f"| {r['group']} | {r['row']} | {r['parameters'] / 1e6:.2f} M | {100 * r['ratio']:.1f} % | {r['score']:.3f} | "
                         f"{r['low']:.3f} to {r['high']:.3f} | {kept} |")
        lines.append("")
    return "\n".join(lines)
