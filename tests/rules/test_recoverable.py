"""The rule `recoverable`: its dynamic programming against brute force, budgets, walls, and what it
refuses. No weights.
"""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest

from tests.plans.qwen import qwen_block, teacher
from tests.refusals import refused
from workbench import plans, rules
from workbench.records import Plan, Row, SensitivityMap, Span, StackInfo, Teacher
from workbench.rules import Budget, recoverable

PATH = "transformer_blocks"
Table = dict[tuple[int, int], float]


def spans_map(
    tables: dict[str, Table], shapes: list[dict] | None = None, times: tuple[float, ...] = (500.0,)
) -> SensitivityMap:
    rows = [
        Row(stack=path, block=u, last=k, edit=edit, timestep=t, score=factor * score)
        for edit, factor in (("zero-shot", 10.0), ("recovered", 1.0))
        for path, table in tables.items()
        for (u, k), score in table.items()
        for t in times
    ]
    return SensitivityMap(
        teacher="qwen",
        fingerprint="",
        family="qwenimage",
        metric="recovery",
        rows=rows,
        measured={"shapes": shapes or [], "training": {"steps": 60}},
    )


def drawn(depth: int, longest: int, seed: int) -> Table:
    draw = random.Random(seed)
    return {
        (u, k): draw.random() * (k - u)
        for u in range(depth)
        for k in range(u + 1, min(u + longest, depth))
    }


def brute(costs: Table, depth: int, walls: set[int]) -> dict[int, float]:
    """Least sum per number of spans, over all partitions."""
    best: dict[int, float] = {}
    for count in range(1, depth + 1):
        for cuts in combinations(range(1, depth), count - 1):
            spans = [(a, b - 1) for a, b in pairwise((0, *cuts, depth))]
            if any(u < w <= k for u, k in spans for w in walls) or any(
                k > u and (u, k) not in costs for u, k in spans
            ):
                continue
            best[count] = min(
                best.get(count, float("inf")),
                sum(costs[span] for span in spans if span[1] > span[0]),
            )
    return best


@pytest.mark.parametrize("seed", range(6))
def test_the_partition_is_the_best_of_all(seed: int) -> None:
    depth, walls = 7 + seed % 3, {0} if seed % 2 else {0, 3, 4}
    costs = drawn(depth, 2 + seed % 4, seed)
    found, all_of_them = recoverable.partitions(costs, depth, walls), brute(costs, depth, walls)
    assert set(found) == set(all_of_them)
    for count, (total, spans) in found.items():
        assert (
            total
            == pytest.approx(all_of_them[count])
            == pytest.approx(sum(costs.get(span, 0.0) for span in spans))
        )
        assert len(spans) == count and [b for u, k in spans for b in range(u, k + 1)] == list(
            range(depth)
        )


def test_spans_start_as_in_the_map_unless_a_person_says_otherwise() -> None:
    table = {(0, 1): 5.0, (1, 2): 1.0, (2, 3): 5.0, (3, 4): 2.0, (4, 5): 5.0}
    found = spans_map(
        {PATH: table},
        [
            {"stack": PATH, "first": 1, "last": 2, "init": "mean", "gain": 2.0},
            {"stack": PATH, "first": 3, "last": 4, "init": "first", "gain": 2.0},
        ],
    )
    made = rules.propose("recoverable", teacher(6), {PATH: 4}, found)
    assert [(s.blocks, s.init, s.gain) for s in made.stacks[PATH] if len(s) > 1] == [
        ((1, 2), "mean", 2.0),
        ((3, 4), "first", 2.0),
    ]
    assert made.origin["rule"] == "recoverable" and made.origin["sensitivity"] == found.digest
    other = rules.propose("recoverable", teacher(6), {PATH: 4}, found, init="last", gain=1)
    assert [(s.init, s.gain) for s in other.stacks[PATH] if len(s) > 1] == [("last", 1.0)] * 2
    *_, last = rules.proposing("recoverable", teacher(6), {PATH: 4}, found)
    assert last.result.why[PATH] == [
        "",
        "one block for 1-2: 10 -> 1 after 60 steps",
        "one block for 3-4: 20 -> 2 after 60 steps",
        "",
    ]


def test_protected_blocks_stay_alone_and_deep_ones_become_single() -> None:
    found = spans_map({PATH: drawn(6, 4, 1)})
    made = rules.propose(
        "recoverable", teacher(6), {PATH: 4}, found, protect={PATH: frozenset({2})}, single_from=2
    )
    assert (
        Span(blocks=(2, 2)).blocks in [s.blocks for s in made.stacks[PATH]]
        and len(made.stacks[PATH]) == 4
    )
    assert [s.stream for s in made.stacks[PATH] if not s.first <= 2 <= s.last][-1] == "single"


def test_timesteps_weigh_as_asked() -> None:
    """Blocks 0-1 are cheap at noise, 2-3 at the picture."""
    scores = {(0, 1): (0.1, 0.9), (1, 2): (9.0, 9.0), (2, 3): (0.9, 0.1)}
    rows = [
        Row(stack=PATH, block=u, last=k, edit="recovered", timestep=t, score=s)
        for (u, k), both in scores.items()
        for t, s in zip((1000.0, 0.0), both, strict=True)
    ]
    found = SensitivityMap(
        teacher="qwen", fingerprint="", family="qwenimage", metric="recovery", rows=rows
    )
    merged = {
        w: next(
            s.blocks
            for s in rules.propose(
                "recoverable", teacher(4), {PATH: 3}, found, timestep_weight=w
            ).stacks[PATH]
            if len(s) > 1
        )
        for w in ("high-noise", "low-noise")
    }
    assert merged == {"high-noise": (0, 1), "low-noise": (2, 3)}


def two_stacks() -> Teacher:
    dual = StackInfo(
        path="transformer_blocks", kind="dual", layouts=[qwen_block(64)], layout_of=[0] * 5
    )
    single = StackInfo(
        path="single_transformer_blocks",
        kind="single",
        layouts=[{"attn.to_q.weight": [64, 64]}],
        layout_of=[0] * 4,
    )
    return Teacher(
        name="qwen",
        family="flux",
        class_name="FluxTransformer2DModel",
        stacks=[dual, single],
        outside=1000,
    )


@pytest.mark.parametrize("share", [0.85, 0.6, 0.45])
def test_a_budget_over_two_stacks_is_met_by_the_least_sum(share: float) -> None:
    of, tables = (
        two_stacks(),
        {"transformer_blocks": drawn(5, 4, 1), "single_transformer_blocks": drawn(4, 3, 2)},
    )
    found = spans_map(tables).model_copy(update={"family": "flux"})
    made = rules.propose(
        "recoverable", of, sensitivity=found, budget=Budget(params=share), timestep_weight="uniform"
    )
    assert plans.parameters(made, of) <= share * of.parameters
    best = min(
        a + b
        for n, (a, cut) in recoverable.partitions(tables["transformer_blocks"], 5, {0}).items()
        for m, (b, other) in recoverable.partitions(
            tables["single_transformer_blocks"], 4, {0}
        ).items()
        if plans.parameters(_plan(of, cut, other), of) <= share * of.parameters
    )
    total = sum(
        tables[path].get(span.blocks, 0.0) for path, of_it in made.stacks.items() for span in of_it
    )
    assert total == pytest.approx(best)


def _plan(of: Teacher, *cuts: list[tuple[int, int]]) -> Plan:
    stacks = {
        s.path: [Span(blocks=span) for span in cut] for s, cut in zip(of.stacks, cuts, strict=True)
    }
    return Plan(teacher="qwen", family="flux", stacks=stacks)


def test_what_it_refuses() -> None:
    found = spans_map({PATH: drawn(8, 2, 0)})
    with refused(found="keep 3 blocks", expected="at least 4", do="--longest"):
        rules.propose("recoverable", teacher(8), {PATH: 3}, found)
    with refused(found="params=0.2", do="--longest"):
        rules.propose("recoverable", teacher(8), sensitivity=found, budget=Budget(params=0.2))
    drops = SensitivityMap(
        teacher="qwen",
        fingerprint="",
        family="qwenimage",
        rows=[Row(stack=PATH, block=0, edit="drop", score=1.0)],
    )
    with refused(
        found="metric prediction",
        expected="metric recovery",
        do="`workbench profile --metric recovery`",
    ):
        rules.propose("recoverable", teacher(8), {PATH: 4}, drops)
    with refused(found="sensitivity map", do="--metric recovery"):
        rules.propose("recoverable", teacher(8), {PATH: 4})
