"""Racing: its decisions against scipy's paired t test, its choice against that of the full scan, its
rate of wrong decisions by simulation, and that settled blocks are not measured again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

import workbench
from tests.tiny import tiny_inputs, tiny_transformer
from workbench import models, plans
from workbench.models import Call
from workbench.plugins import unregister
from workbench.records import BadInput, Race, SensitivityMap
from workbench.sensitivity import call_loop
from workbench.sensitivity.profiling import profile
from workbench.sensitivity.race import ERROR, Racing, surely_lower
from workbench.sensitivity.results import CallScores, Key, Scores, mean_rows
from workbench.sensitivity.scan import Scan
from workbench.sensitivity.scan_settings import Setting
from workbench.sensitivity.table import KEEP, Metric

BLOCKS, LOWEST, BATCH, GROUPS = 8, 3, 4, 6
TIMES = (900.0, 100.0)
STACK = "transformer_blocks"


def made_up(seed: int, noise: float, blocks: int = BLOCKS) -> np.ndarray:
    """Scores (prompts, timesteps, blocks): block b is about b + 1 (10 times that at the second
    timestep), every prompt scales all blocks alike, and each block has noise of its own."""
    rng = np.random.default_rng(seed)
    prompts = GROUPS * BATCH
    level = np.exp(0.5 * rng.normal(size=(prompts, 1, 1)))
    own = np.exp(noise * rng.normal(size=(prompts, len(TIMES), blocks)))
    return level * own * (np.arange(blocks) + 1) * np.array([[[1.0], [10.0]]])


def calls_of(scores: np.ndarray, group: int, numbers: Sequence[int]) -> list[CallScores]:
    """The calls of one batch, with the scores of these blocks."""
    batch = scores[group * BATCH : (group + 1) * BATCH]  # (samples, timesteps, blocks)
    found = []
    for time, timestep in enumerate(TIMES):
        of_time = {Key(STACK, b, "drop"): batch[:, time, b].tolist() for b in numbers}
        found.append(CallScores(group, timestep, of_time))
    return found


def lowest_of_all(scores: np.ndarray, lowest: int, weighting: str) -> set[int]:
    """The lowest blocks of the full scan, by plans.block_scores."""
    calls: list[CallScores] = []
    for group in range(GROUPS):
        calls += calls_of(scores, group, range(scores.shape[2]))
    record = SensitivityMap(teacher="x", fingerprint="", family="qwenimage", rows=mean_rows(calls))
    means = plans.block_scores(record, "drop", weighting)
    return {block for _, block in sorted(means, key=lambda place: means[place])[:lowest]}


def raced(scores: np.ndarray, lowest: int, weighting: str = "normalised") -> tuple[Racing, Race]:
    keys = [Key(STACK, b, "drop") for b in range(scores.shape[2])]
    racing = Racing(keys, lowest, weighting)
    calls: list[CallScores] = []
    for group in range(GROUPS):
        if racing.undecided:
            calls += calls_of(scores, group, racing.undecided)
            racing.look(calls)
    return racing, racing.result(calls)


def test_surely_lower_is_a_one_sided_paired_t_test() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 5)) + np.arange(5)
    found = surely_lower(scores, 0.01)
    for i in range(5):
        for j in range(5):
            if i != j:
                p = ttest_rel(scores[:, i], scores[:, j], alternative="less").pvalue
                assert found[i, j] == (p < 0.01)
    assert found.any() and not found.all()


@pytest.mark.parametrize("weighting", plans.WEIGHTINGS)
@pytest.mark.parametrize("noise", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("lowest", [1, LOWEST, BLOCKS - 1])
def test_the_lowest_are_those_of_the_full_scan(weighting: str, noise: float, lowest: int) -> None:
    scores = made_up(1, noise)
    racing, result = raced(scores, lowest, weighting)
    assert {block for _, block in result.lowest} == lowest_of_all(scores, lowest, weighting)
    assert len(result.lowest) == lowest and result.blocks == BLOCKS
    assert len(racing.inside) <= lowest and len(racing.outside) <= BLOCKS - lowest
    if noise == 0.05:
        assert not result.undecided


def test_blocks_are_settled_wrongly_less_often_than_promised() -> None:
    """Blocks at the border differ by less than their noise; every race has up to six looks."""
    wrong = settled = 0
    races = 150
    for seed in range(races):
        racing, _ = raced(made_up(seed, 0.25, blocks=6), 3, "uniform")
        settled += len(racing.inside | racing.outside)
        wrong += bool(racing.inside - {0, 1, 2}) or bool(racing.outside - {3, 4, 5})
    assert wrong <= ERROR * races
    assert settled > races, "the simulation settles something"


def test_equal_blocks_are_never_settled() -> None:
    scores = np.repeat(made_up(0, 0.3, blocks=1), 4, axis=2)
    racing, result = raced(scores, 2)
    assert len(racing.undecided) == len(result.undecided) == 4 and len(result.lowest) == 2


def test_too_few_prompts_settle_nothing() -> None:
    scores = made_up(0, 0.0)
    racing = Racing([Key(STACK, b, "drop") for b in range(BLOCKS)], LOWEST, "normalised")
    racing.look(calls_of(scores, 0, range(BLOCKS)))  # 4 prompts
    assert racing.looks == 0 and len(racing.undecided) == BLOCKS


# --- in a scan ------------------------------------------------------------------------------------


class MadeUp:
    """A metric whose scores are made up; counts how often each block is measured."""

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.measured: Counter[Key] = Counter()

    def __call__(self, scan: Scan, call: Call) -> Scores:
        batch = self.scores[call.group * BATCH : (call.group + 1) * BATCH]
        found: Scores = {}
        for edit in scan.edits:
            for place in scan.places(edit):
                key = Key(*place, edit.name)
                self.measured[key] += 1
                found[key] = batch[:, TIMES.index(call.timestep), place[1]].tolist()
        return found


@pytest.fixture
def metric() -> Iterator[MadeUp]:
    made = MadeUp(made_up(3, 0.3))
    row = Metric("made up", KEEP, "Made up.", needs="call", measure=made, edits=("drop",))
    workbench.register("metric", "made-up", row)
    yield made
    unregister("metric", "made-up")


def recorded() -> list[Call]:
    return [
        Call(tiny_inputs(batch=BATCH, seed=group), time, group, BATCH, "cond")
        for group in range(GROUPS)
        for time in TIMES
    ]


def scan(
    setting: Setting, edits: Sequence[str] = ("drop",), calls: Sequence[Call] | None = None
) -> Iterator:
    model = tiny_transformer(depth=BLOCKS)
    teacher = models.describe_module(model)
    given = iter(recorded()) if calls is None else calls
    return profile(model, teacher, given, edits=edits, metric="made-up", setting=setting)


def test_a_scan_never_measures_a_settled_block_again(metric: MadeUp) -> None:
    progress = list(scan(Setting(race=LOWEST)))
    record = progress[-1].result
    undecided = [one.metrics["undecided"] for one in progress if "undecided" in one.metrics]
    assert undecided[0] == BLOCKS and undecided == sorted(undecided, reverse=True)
    assert undecided[-1] < BLOCKS
    race = record.races["drop"]
    assert race == raced(metric.scores, LOWEST)[1], "the scan decides as the race alone does"
    assert {block for _, block in race.lowest} == lowest_of_all(metric.scores, LOWEST, "normalised")
    samples = {row.block: row.samples for row in record.rows}
    assert min(samples.values()) < max(samples.values()), "settled blocks have fewer samples"
    for key, times in metric.measured.items():
        assert times * BATCH == len(TIMES) * samples[key.block]
        batch = metric.scores[: samples[key.block], 0, key.block]
        row = next(r for r in record.rows if (r.block, r.timestep) == (key.block, TIMES[0]))
        assert row.score == pytest.approx(batch.mean())
        assert row.stderr == pytest.approx(batch.std(ddof=1) / len(batch) ** 0.5)
    assert record.stability == {} and "the 3 lowest by drop" in record.trust


def test_a_scan_ends_when_all_blocks_are_settled(metric: MadeUp) -> None:
    metric.scores = made_up(3, 0.01)
    record = list(scan(Setting(race=LOWEST)))[-1].result
    assert record.races["drop"].undecided == ()
    assert record.measured["samples"] < GROUPS * BATCH


def test_recorded_calls_race_batch_after_batch(metric: MadeUp) -> None:
    """In a file they may stand timestep after timestep: no block is settled by some timesteps."""
    in_turn = list(scan(Setting(race=LOWEST)))[-1].result
    by_time = sorted(recorded(), key=lambda call: -call.timestep)
    record = list(scan(Setting(race=LOWEST), calls=by_time))[-1].result
    assert record.races == in_turn.races and record.rows == in_turn.rows


def test_every_edit_has_its_own_race(metric: MadeUp) -> None:
    record = list(scan(Setting(race=2), edits=("drop", "merge:first:1")))[-1].result
    assert {edit: race.blocks for edit, race in record.races.items()} == {
        "drop": BLOCKS,
        "merge:first:1": BLOCKS - 1,
    }


def test_a_stopped_race_resumes_to_the_same_map(
    metric: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(scan(Setting(race=LOWEST)))[-1].result
    setting = Setting(race=LOWEST, partial=tmp_path / "partial")
    work = scan(setting)
    for _ in range(1 + 2 * 4 + 1):  # the estimate, four batches and a call: some are settled
        next(work)
    work.close()
    ran: list[tuple[int, float]] = []
    real = call_loop.CallLoop.scored

    def scored(self: call_loop.CallLoop, call: Call) -> CallScores:
        ran.append((call.group, call.timestep))
        return real(self, call)

    monkeypatch.setattr(call_loop.CallLoop, "scored", scored)
    resumed = list(scan(setting))[-1].result
    assert ran == [(4, 100.0), (5, 900.0), (5, 100.0)]
    assert resumed.rows == whole.rows and resumed.races == whole.races


def test_a_partial_scan_of_another_race_is_not_used(metric: MadeUp, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    list(scan(Setting(race=LOWEST, partial=partial)))
    before = metric.measured.copy()
    record = list(scan(Setting(partial=partial)))[-1].result
    measured = metric.measured - before
    assert set(measured.values()) == {GROUPS * len(TIMES)}, "a full scan measures everything"
    assert {row.samples for row in record.rows} == {GROUPS * BATCH}


@pytest.mark.parametrize("lowest", [0, BLOCKS, 99])
def test_a_race_needs_blocks_inside_and_outside(metric: MadeUp, lowest: int) -> None:
    with pytest.raises(BadInput) as caught:
        list(scan(Setting(race=lowest)))
    assert f"{lowest} lowest of {BLOCKS} blocks" in caught.value.found
    assert caught.value.expected == f"1 to {BLOCKS - 1}"
