"""The papers' tables on the bundled teacher, as data: what `workbench reproduce` builds, trains and
scores.

A table has groups of equal size; a group has rows. Within a group every student has at most the
same share of its teacher's parameters and trains for the same time on the same scenes. Step sizes
of the papers belong to models a thousand times larger and runs a thousand times longer, so every
recipe trains here with the optimizer of our own (`TINY`); what it trains, on whose states, and
which losses it sums is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import BadInput

TINY: dict[str, Any] = {
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
EQUAL = "workbench"  # the recipe whose stages train every row of a comparison of rules


@dataclass(frozen=True)
class Row:
    """One student. `plan`: flags of the kind plan. `train`: the recipe whose stages train it, none
    where empty. `start`: the row of the same group whose student it continues or rounds. `changes`:
    fields that differ in every stage."""

    name: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    train: str = EQUAL
    start: str = ""
    # (group, row) of the same table whose student is the teacher of this row: a second step
    on: tuple[str, str] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    int4: bool = False
    slow: bool = False  # its plan alone takes longer than a quick run has
    about: str = ""


@dataclass(frozen=True)
class Group:
    """Rows of one teacher and one size. `finals`: the two best rows train on, six times as long."""

    name: str
    ratio: float  # share of the teacher's parameters that no student exceeds
    rows: tuple[Row, ...]
    teacher: str = "demo"
    finals: bool = False


@dataclass(frozen=True)
class Table:
    title: str
    paper: str  # arXiv id
    groups: tuple[Group, ...]


HALF, DEEP = {"keep": 0.5, "free_cuts": True}, {"keep": 0.5, "single_from": 0.17}
OURS = {"recipe": "workbench"}
# joins; then the text is only read; then parts
READ = {**OURS, "keep": 0.5, "slim_from": 1, "edits": "join,parts", "budget": "params=0.3"}


def _rules(**more: Any) -> tuple[Row, ...]:
    """All rules that decide about depth, each trained alike."""
    size = {**HALF, **more}
    return (
        Row(
            "uniform",
            {"rule": "uniform", **size},
            about="spans of equal length, each becomes its first block",
        ),
        Row("influence", {"rule": "influence", **size}, about="ShortGPT, FLUX.1-lite"),
        Row(
            "amber",
            {"rule": "amber", **size},
            about="local weight averaging without gain, as published",
        ),
        Row(
            "amber, gain",
            {"rule": "amber", "gain": "length", **size},
            about="ours: the merged block takes the step of its run",
        ),
        Row(
            "hierarchical",
            {"rule": "hierarchical", "parts": False, **size},
            about="HierarchicalPrune's order, whole blocks only",
        ),
        Row("ppcl", {"rule": "ppcl", **size}, about="intervals of alike states (CKA)"),
        Row(
            "recoverable",
            {"rule": "recoverable", **size},
            slow=True,
            about="ours: the spans that a short training repairs best",
        ),
    )


TABLES: dict[str, Table] = {
    "amber": Table(
        "Amber-Image: half the blocks, then hybrid streams",
        "2602.17047",
        (
            Group(
                "-50 %",
                0.5,
                (
                    *_rules(),
                    Row(
                        "amber-10b",
                        {"rule": "amber", **HALF},
                        "amber-10b",
                        about="the paper's two stages",
                    ),
                    Row(
                        "koala",
                        {"rule": "uniform", **HALF},
                        "koala",
                        about="end-to-end feature distillation, the baseline of HierarchicalPrune",
                    ),
                    Row(
                        "workbench",
                        {**OURS, **HALF},
                        about="ours: joins of neighbours, measured again after each (rule greedy)",
                    ),
                ),
                finals=True,
            ),
            Group(
                "-70 %",
                0.3,
                (
                    Row("uniform", {"rule": "uniform", "keep": 7}, about="depth alone"),
                    Row("amber", {"rule": "amber", "keep": 7}, about="depth alone"),
                    Row(
                        "amber-hybrid",
                        {"rule": "amber-hybrid", **DEEP},
                        about="the rule, trained like the others",
                    ),
                    Row(
                        "amber-6b",
                        {"recipe": "amber-6b"},
                        "amber-6b",
                        on=("-50 %", "amber-10b"),
                        about="the paper's second step on its first, trained twice",
                    ),
                    Row(
                        "single-stream",
                        {"rule": "uniform", "keep": 12, "single_from": 2},
                        on=("-50 %", "workbench"),
                        about="ours: the deep blocks of our half made single-stream, trained twice",
                    ),
                    Row(
                        "workbench",
                        READ,
                        about="ours: all blocks but the first only read the text; "
                        "joins and parts, measured",
                    ),
                ),
                finals=True,
            ),
            Group(
                "-50 %, demo-12",
                0.52,
                (
                    Row("uniform", {"rule": "uniform", **HALF}),
                    Row("amber", {"rule": "amber", **HALF}),
                    Row("amber, gain", {"rule": "amber", "gain": "length", **HALF}),
                    Row("recoverable", {"rule": "recoverable", **HALF}, slow=True),
                    Row("workbench", {**OURS, **HALF}, about="joins alone"),
                    Row(
                        "workbench, slim",
                        {**OURS, "edits": "join,slim", "budget": "params=0.52"},
                        about="and blocks that only read the text",
                    ),
                ),
                teacher="demo-12",
            ),
        ),
    ),
    "hierarchicalprune": Table(
        "HierarchicalPrune: what each ingredient adds",
        "2508.04663",
        tuple(
            Group(
                f"-{cut} %",
                1 - cut / 100,
                (
                    Row(
                        "HPP only",
                        {"rule": "hierarchical", "budget": f"params={1 - cut / 100:g}"},
                        "",
                        about="the cut, not trained",
                    ),
                    Row(
                        "+ PWP",
                        start="HPP only",
                        train=f"hierarchicalprune-{cut}",
                        changes={"scale": "none"},
                        about="all before the first cut frozen",
                    ),
                    Row(
                        "+ SGDistill",
                        start="HPP only",
                        train=f"hierarchicalprune-{cut}",
                        changes={"scale": "inverse-sensitivity"},
                        about="updates scaled by 1/sensitivity",
                    ),
                    # The paper scales from a quarter on; at 20 % its own student is the one
                    # without.
                    Row(
                        "+ INT4",
                        start="+ SGDistill" if cut == 30 else "+ PWP",
                        train="",
                        int4=True,
                        about="weights rounded to 4 bits"
                        if cut == 30
                        else "weights of + PWP rounded to 4 bits",
                    ),
                    Row(
                        "KOALA",
                        {"rule": "uniform", "budget": f"params={1 - cut / 100:g}"},
                        "koala",
                        about="no preservation",
                    ),
                    Row("workbench", {**OURS, "budget": f"params={1 - cut / 100:g}"}),
                ),
            )
            for cut in (20, 30)
        ),
    ),
    "ppcl": Table(
        "PPCL: whose states feed the blocks",
        "2511.16156",
        (
            Group(
                "-42 %",
                0.6,
                (
                    Row("not trained", {"rule": "ppcl", "keep": 0.583}, ""),
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
                ),
            ),
        ),
    ),
}


def chosen(name: str) -> dict[str, Table]:
    """The tables a name stands for. Raises BadInput for an unknown one."""
    if name == "all":
        return TABLES
    if name not in TABLES:
        raise BadInput(f"table {name!r}", "one of " + ", ".join([*TABLES, "all"]), "choose one")
    return {name: TABLES[name]}


def wanted(table: Table, only: Sequence[str], quick: bool) -> dict[str, tuple[Row, ...]]:
    """Group -> the rows named, all where none is (a quick run leaves out the slow ones), and those
    they start from or stand on.
    """
    rows = {(g.name, row.name): row for g in table.groups for row in g.rows}
    found = {
        place
        for place, row in rows.items()
        if (row.name in only if only else not (quick and row.slow))
    }
    for group, name in reversed(rows):  # what a row needs comes before it
        row = rows[group, name]
        if (group, name) in found:
            found |= ({(group, row.start)} if row.start else set()) | (
                {row.on} if row.on else set()
            )
    return {
        g.name: tuple(row for row in g.rows if (g.name, row.name) in found) for g in table.groups
    }
