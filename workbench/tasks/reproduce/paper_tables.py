"""The papers' tables on the bundled teachers: Amber-Image (arXiv 2602.17047), HierarchicalPrune
(2508.04663), PPCL (2511.16156) and DASH (2606.00798).
"""

from __future__ import annotations

from .table import Group, Row, RowId, half, plan


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
        Row(
            "+ INT4",
            start="teacher-fed",
            train="",
            int4=True,
            about="weights of teacher-fed rounded to 4 bits, which the paper finds poor",
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
