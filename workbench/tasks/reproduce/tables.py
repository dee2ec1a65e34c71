"""The papers' tables on the bundled teacher, as data: what `workbench reproduce` builds, trains and
scores.

A table has groups of equal size; a group has rows. Within a group every student has at most the
same share of its teacher's parameters and trains for the same time on the same scenes. Step sizes
of the papers belong to models a thousand times larger and runs a thousand times longer, so every
recipe trains here with the optimizer of our own (`OPTIMIZER`); what it trains, on whose states, and
which losses it sums is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import BadInput
from ...specs import PlanSpec

StageChanges = Mapping[str, Any]  # fields of records.Stage
OPTIMIZER: StageChanges = {
    "optimizer": "muon",
    "lr": 2e-3,
    "batch": 48,
    "schedule": "linear",
    "warmup": 10,
    "weight_decay": 0.0,
    "precision": "bfloat16",
    "ema": 0.99,
    "accumulate": 1,
}
OURS = "workbench"  # our recipe, and the rows that show it


@dataclass(frozen=True)
class RowId:
    """A row of a table, by the name of its group and its own."""

    group: str
    row: str


@dataclass(frozen=True)
class Row:
    """One student.

    plan: its plan, without teacher and output. keep_share: how many blocks it keeps, as a share of
    the teacher's depth; takes the place of the plan's `keep`. start: the row of the same group
    whose built student it trains or whose student it rounds, in place of a plan. train: the recipe
    whose stages train it; empty: none. changes: fields that differ in every stage. second_step_of:
    the row of the same table whose student is this row's teacher. slow: a quick run has no time for
    it.
    """

    name: str
    plan: PlanSpec | None = None
    keep_share: float | None = None
    start: str = ""
    train: str = OURS
    changes: StageChanges = field(default_factory=dict)
    second_step_of: RowId | None = None
    int4: bool = False
    slow: bool = False
    about: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of one teacher and one size.

    ratio: share of the teacher's parameters that no student exceeds. finals: the two best rows
    train again, longer.
    """

    name: str
    ratio: float
    rows: tuple[Row, ...]
    teacher: str = "demo"
    finals: bool = False


@dataclass(frozen=True)
class Table:
    """paper: its arXiv id."""

    title: str
    paper: str
    groups: tuple[Group, ...]

    def rows(self) -> Iterator[tuple[RowId, Row]]:
        for group in self.groups:
            for row in group.rows:
                yield RowId(group.name, row.name), row


# --- the tables -----------------------------------------------------------------------------------


def plan(**options: Any) -> PlanSpec:
    """Options of a row's plan. Its teacher is the group's."""
    return PlanSpec.parse({"teacher": "demo", **options})


def half(
    name: str, about: str = "", *, train: str = OURS, slow: bool = False, **options: Any
) -> Row:
    """A row that keeps half of the blocks."""
    spec = plan(free_cuts=True, **options)
    return Row(name, spec, keep_share=0.5, train=train, slow=slow, about=about)


def amber_half() -> Group:
    """All rules that decide about depth, each trained alike, and the papers' own trainings."""
    rows = (
        half("uniform", "spans of equal length, each becomes its first block", rule="uniform"),
        half("influence", "ShortGPT, FLUX.1-lite", rule="influence"),
        half("amber", "local weight averaging without gain, as published", rule="amber"),
        half(
            "amber, gain",
            "ours: the merged block takes the step of its span",
            rule="amber",
            gain="length",
        ),
        half(
            "hierarchical",
            "HierarchicalPrune's order, whole blocks only",
            rule="hierarchical",
            parts=False,
        ),
        half("ppcl", "intervals of alike states (CKA)", rule="ppcl"),
        half(
            "recoverable",
            "ours: the spans with the lowest error after a short training",
            rule="recoverable",
            slow=True,
        ),
        half("amber-10b", "the paper's two stages", rule="amber", train="amber-10b"),
        Row(
            "amber-10b+",
            plan(recipe="amber-10b+", free_cuts=True, budget="params=0.488"),
            train="amber-10b+",
            slow=True,
            about="the paper's two stages on more blocks, with modulation of rank 8",
        ),
        half(
            "koala",
            "end-to-end feature distillation, the baseline of HierarchicalPrune",
            rule="uniform",
            train="koala",
        ),
        half(
            "workbench",
            "ours: joins of neighbours, measured again after each (rule greedy)",
            recipe="workbench",
        ),
    )
    return Group("-50 %", 0.5, rows, finals=True)


def amber_third() -> Group:
    rows = (
        Row("uniform", plan(rule="uniform", keep=7), about="depth alone"),
        Row("amber", plan(rule="amber", keep=7), about="depth alone"),
        Row(
            "amber-hybrid",
            plan(rule="amber-hybrid", single_from=0.17),
            keep_share=0.5,
            about="the rule, trained like the others",
        ),
        Row(
            "amber-6b",
            plan(recipe="amber-6b"),
            train="amber-6b",
            second_step_of=RowId("-50 %", "amber-10b"),
            about="the paper's second step on its first, trained twice",
        ),
        Row(
            "amber-6b+",
            plan(recipe="amber-6b+", free_cuts=True, budget="params=0.3"),
            train="amber-6b+",
            slow=True,
            about="the paper's first step alone, with modulation of rank 8",
        ),
        Row(
            "single-stream",
            plan(rule="uniform", keep=12, single_from=2),
            second_step_of=RowId("-50 %", "workbench"),
            about="ours: the deep blocks of our half made single-stream, trained twice",
        ),
        Row(
            "workbench",
            plan(recipe="workbench", slim_from=1, edits="join,parts", budget="params=0.3"),
            keep_share=0.5,
            about="ours: all blocks but the first only read the text; joins and parts, measured",
        ),
    )
    return Group("-70 %", 0.3, rows, finals=True)


def amber_not_grown() -> Group:
    slim = plan(recipe="workbench", edits="join,slim", budget="params=0.52")
    rows = (
        half("uniform", rule="uniform"),
        half("amber", rule="amber"),
        half("amber, gain", rule="amber", gain="length"),
        half("recoverable", rule="recoverable", slow=True),
        half("workbench", "joins alone", recipe="workbench"),
        Row("workbench, slim", slim, about="and blocks that only read the text"),
    )
    return Group("-50 %, demo-12", 0.52, rows, teacher="demo-12")


def hierarchical(percent: int) -> Group:
    """The paper's ingredients, one by one, with `percent` of the parameters removed."""
    ratio = 1 - percent / 100
    budget = f"params={ratio:g}"
    recipe = f"hierarchicalprune-{percent}"
    # The paper scales updates from a quarter on; at 20 % its own student is the one without.
    int4_of = "+ SGDistill" if percent >= 25 else "+ PWP"
    rows: tuple[Row, ...] = (
        Row(
            "HPP only",
            plan(rule="hierarchical", budget=budget),
            train="",
            about="the cut, not trained",
        ),
        Row(
            "+ PWP",
            start="HPP only",
            train=recipe,
            changes={"scale": "none"},
            about="all before the first cut frozen",
        ),
        Row(
            "+ SGDistill",
            start="HPP only",
            train=recipe,
            changes={"scale": "inverse-sensitivity"},
            about="updates scaled by 1/sensitivity",
        ),
        Row(
            "+ INT4",
            start=int4_of,
            train="",
            int4=True,
            about=f"weights of {int4_of} rounded to 4 bits",
        ),
        Row("KOALA", plan(rule="uniform", budget=budget), train="koala", about="no preservation"),
        Row("workbench", plan(recipe="workbench", budget=budget)),
    )
    if percent == 30:
        name = "hierarchicalprune-30+"
        about = "the paper's training, with modulation of rank 8"
        rows = (
            *rows,
            Row(name, plan(recipe=name, budget=budget), train=name, slow=True, about=about),
        )
    return Group(f"-{percent} %", ratio, rows)


def ppcl() -> Group:
    rows = (
        Row("not trained", plan(rule="ppcl"), keep_share=0.583, train=""),
        Row(
            "sequential",
            start="not trained",
            train="ppcl",
            changes={"inputs": "student", "gradient": "full"},
            about="each block on the student's own states",
        ),
        Row(
            "teacher-fed",
            start="not trained",
            train="ppcl",
            about="each block on the teacher's states, no gradient between",
        ),
    )
    return Group("-42 %", 0.6, rows)


def branches() -> Group:
    """One student, trained for the same time on one branch of guidance or on both. A step on both
    takes twice as long, so a row has half the steps, or as many of half the batch.
    """
    both = {"branches": "both"}
    rows = (
        half(
            "workbench",
            "one branch: captions, one in ten of them left out",
            recipe="workbench",
        ),
        Row("both branches", start="workbench", changes=both, slow=True, about="half the steps"),
        Row(
            "both branches at batch 24",
            start="workbench",
            changes={**both, "batch": 24},
            slow=True,
            about="the same number of steps",
        ),
    )
    return Group("-50 %, demo-12", 0.52, rows, teacher="demo-12")


def modulation_alone(teacher: str) -> Group:
    """The modulation in two factors and nothing else, beside depth alone."""
    slow = teacher != "demo"
    rows = (
        factored("rank 4 alone", 4, slow=True),
        factored("rank 8 alone", 8, slow=slow),
        Row("uniform", plan(rule="uniform", budget="params=0.7"), slow=True, about="depth alone"),
        Row(
            "workbench",
            plan(recipe="workbench", budget="params=0.7"),
            slow=True,
            about="depth alone, measured",
        ),
    )
    return Group(f"-30 %, {teacher}", 0.7, rows, teacher=teacher)


def factored(name: str, rank: int, slow: bool) -> Row:
    """All blocks with modulation of a rank, not trained."""
    return Row(
        name,
        plan(rule="uniform", modulation_rank=rank),
        keep_share=1.0,
        train="",
        slow=slow,
        about="every block stays, its modulation in two factors",
    )


def modulation_and_more(percent: int, teacher: str, finals: bool = False) -> Group:
    """Equal parameters with and without low-rank modulation. A quick run has time for one row."""
    ratio = round(1 - percent / 100, 2)
    budget = f"params={ratio:g}"
    rows = (
        Row(
            "workbench and slim",
            plan(recipe="workbench", edits="join,slim", budget=budget),
            slow=True,
            about="full modulation: joins and blocks that only read the text",
        ),
        Row(
            "uniform, rank 8",
            plan(rule="uniform", budget=budget, modulation_rank=8),
            slow=True,
            about="spans of equal length",
        ),
        Row(
            "rank 8 + depth",
            plan(recipe="workbench+", edits="join", budget=budget),
            slow=True,
            about="joins alone, measured",
        ),
        Row(
            "workbench+",
            plan(recipe="workbench+", budget=budget),
            slow=(teacher, percent) != ("demo", 80),
            about="joins and blocks that only read the text, measured",
        ),
    )
    return Group(f"-{percent} %, {teacher}", ratio, rows, teacher=teacher, finals=finals)


def modulation_groups() -> tuple[Group, ...]:
    """Rank alone, then rank with depth and slim text streams, on both teachers."""
    groups = []
    for teacher in ("demo", "demo-12"):
        groups.append(modulation_alone(teacher))
        for percent in (50, 60, 70, 80):
            finals = (teacher, percent) in MODULATION_FINALS
            groups.append(modulation_and_more(percent, teacher, finals))
    return tuple(groups)


# the sizes at which the two best rows train for an hour
MODULATION_FINALS = (("demo", 80), ("demo-12", 50), ("demo-12", 70))

TABLES: dict[str, Table] = {
    "amber": Table(
        "Amber-Image: half the blocks, then hybrid streams",
        "2602.17047",
        (amber_half(), amber_third(), amber_not_grown()),
    ),
    "hierarchicalprune": Table(
        "HierarchicalPrune: what each ingredient adds",
        "2508.04663",
        (hierarchical(20), hierarchical(30)),
    ),
    "ppcl": Table("PPCL: whose states feed the blocks", "2511.16156", (ppcl(),)),
    "branches": Table("DASH: both branches of guidance", "2606.00798", (branches(),)),
    "modulation": Table(
        "Low-rank modulation: equal parameters, more blocks", "", modulation_groups()
    ),
}


# --- which rows -----------------------------------------------------------------------------------


def choose_tables(name: str) -> dict[str, Table]:
    """The tables a name stands for; `all`: every one. Raises BadInput for an unknown one."""
    if name == "all":
        return TABLES
    if name not in TABLES:
        raise BadInput(f"table {name!r}", "one of " + ", ".join([*TABLES, "all"]), "choose one")
    return {name: TABLES[name]}


def is_named(only: Sequence[str], group: Group, row: Row) -> bool:
    """Whether a row is chosen by its own name, its group's, or both as GROUP/ROW."""
    return any(name in (row.name, group.name, f"{group.name}/{row.name}") for name in only)


def check_row_names(tables: Mapping[str, Table], only: Sequence[str]) -> None:
    """Raises BadInput for a name that no row and no group of the tables has."""
    groups = [group for table in tables.values() for group in table.groups]
    for name in only:
        named = False
        for group in groups:
            named = named or any(is_named([name], group, row) for row in group.rows)
        if not named:
            known = [group.name for group in groups]
            for group in groups:
                known += [row.name for row in group.rows]
            names = "; ".join(dict.fromkeys(known))
            expected = f"rows, groups, or GROUP/ROW of {names}"
            raise BadInput(f"--only {name}", expected, "choose some, with semicolons between them")


def choose_rows(table: Table, only: Sequence[str], quick: bool) -> dict[str, tuple[Row, ...]]:
    """Group -> the rows that `only` names, and those that they start from or are a second step of.

    Where none is named: all of them; of a quick run all that are not slow.
    """
    rows = dict(table.rows())
    chosen: set[RowId] = set()
    for group in table.groups:
        for row in group.rows:
            named = is_named(only, group, row) if only else not (quick and row.slow)
            if named:
                chosen.add(RowId(group.name, row.name))
    for key, row in reversed(rows.items()):  # what a row needs stands before it
        if key in chosen and row.start:
            chosen.add(RowId(key.group, row.start))
        if key in chosen and row.second_step_of is not None:
            chosen.add(row.second_step_of)
    by_group: dict[str, list[Row]] = {group.name: [] for group in table.groups}
    for key, row in rows.items():
        if key in chosen:
            by_group[key.group].append(row)
    return {name: tuple(of_group) for name, of_group in by_group.items()}
