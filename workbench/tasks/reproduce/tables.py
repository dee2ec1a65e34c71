"""The tables on the bundled teachers, as data: what `workbench reproduce` builds, trains and scores.

Step sizes of the papers belong to models a thousand times larger and runs a thousand times longer,
so every recipe trains here with the optimizer of our own (`table.OPTIMIZER`); what it trains, on
whose states, and which losses it sums is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...records import BadInput
from .modulation_table import modulation_groups
from .paper_tables import (
    amber_half,
    amber_not_grown,
    amber_third,
    branches,
    hierarchical,
    ppcl,
)
from .table import Group, Row, RowId, Table

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
