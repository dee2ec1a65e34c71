"""Low-rank modulation on the bundled teachers: rank alone, then with fewer blocks at equal sizes."""

from __future__ import annotations

from .table import Group, Row, plan

# Where few parameters are left: how many blocks stay, as a share, before parts are dropped.
FEW_BLOCKS = {70: 0.67, 80: 0.5}
# the sizes at which the two best rows train for an hour
MODULATION_FINALS = (("demo", 80), ("demo-12", 50), ("demo-12", 70))


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
    rows: tuple[Row, ...] = (
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
        Row(
            "workbench+, whole text",
            plan(recipe="workbench+", whole_text=1, budget=budget),
            slow=True,
            about="the same, and the first block's text stream stays",
        ),
    )
    if percent in FEW_BLOCKS:
        first_whole = Row(
            "workbench+, first block whole",
            plan(recipe="workbench+", slim_from=1, edits="join,parts", budget=budget),
            keep_share=FEW_BLOCKS[percent],
            slow=True,
            about="joins, all blocks but the first only read the text, then parts, measured",
        )
        rows = (*rows, first_whole)
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
