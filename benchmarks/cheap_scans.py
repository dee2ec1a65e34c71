"""What a cheaper scan says about the order of the blocks: `python benchmarks/cheap_scans.py [--json]`.

The exact scan (metric prediction, edit drop, 20 prompts, 8 timesteps) of both bundled teachers
against the metrics taylor, influence and cka on the same calls; the exact scan on fewer prompts,
mean over 50 draws of them; and races for a quarter, half and three quarters of the blocks, mean over
50 orders of the prompts, decided after every 4 prompts. Spearman: rank correlation with the exact
scan over blocks. lowest: share of the exact scan's lower half that is also in this one's (of a race:
of its K). ratio: block forwards over those of the exact scan; a backward counts as two.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import demo, models, plans  # noqa: E402
from workbench.demo.scenes import caption, prompt_set  # noqa: E402
from workbench.records import Race, SensitivityMap  # noqa: E402
from workbench.sensitivity.partial import read  # noqa: E402
from workbench.sensitivity.profiling import profile  # noqa: E402
from workbench.sensitivity.race import Racing  # noqa: E402
from workbench.sensitivity.results import CallScores, Key, mean_rows  # noqa: E402
from workbench.sensitivity.scan_settings import Setting  # noqa: E402

PROMPTS, TIMESTEPS, BATCH = 20, 8, 4
WEIGHTINGS = ("normalised", "uniform")
FEWER = (1, 2, 5, 10)  # prompts
DRAWS = 50  # of fewer prompts
ORDERS = 50  # of a race's prompts
Scores = dict[tuple[str, int], float]


@dataclass
class Bench:
    """One teacher, the calls that everything is measured on, and what the exact scan says."""

    name: str
    pipe: models.Pipeline
    calls: list[models.Call]
    cache: Path

    def scan(self, metric: str, edits: Sequence[str] | None, **how: Any) -> SensitivityMap:
        transformer = self.pipe.transformer
        teacher = models.describe_module(transformer)
        work = profile(
            transformer, teacher, self.calls, edits=edits, metric=metric, setting=Setting(**how)
        )
        for progress in work:
            print(f"{self.name} {metric} {progress.message}", file=sys.stderr, flush=True)
        record: SensitivityMap = progress.result
        return record


def bench(name: str, cache: Path) -> Bench:
    pipe = models.load_pipeline(Path(demo.teacher_folder(name, cache)), device="cpu")
    prompts = [caption(scene) for scene in prompt_set(PROMPTS // 5, "validation")]
    calls = models.trajectories(
        pipe,
        prompts,
        seeds=[0] * len(prompts),
        steps=demo.DEFAULT_STEPS,
        guidance=demo.DEFAULT_CFG,
        size=demo.SIZE,
        timesteps=TIMESTEPS,
        batch=BATCH,
    )
    return Bench(name, pipe, [call for call in calls if call.branch == "cond"], cache)


def rows(one: Bench) -> Iterator[dict[str, Any]]:
    """Every cheaper scan beside the exact one."""
    partial = one.cache / f"{one.name}.partial"
    exact = one.scan("prediction", ["drop"], partial=partial)
    samples = samples_of(partial)  # (timesteps, blocks, prompts)
    whole = exact.block_evaluations
    for metric in ("taylor", "influence", "cka"):
        record = one.scan(metric, None)
        yield row(one, metric, record.block_evaluations / whole, exact, record)
    for count in FEWER:
        yield fewer_prompts(one, samples, count)
    depth = len(plans.block_scores(exact))
    for weighting in WEIGHTINGS:
        for lowest in (depth // 4, depth // 2, 3 * depth // 4):
            yield race(one, exact, samples, lowest, weighting)


def block_scores(record: SensitivityMap, weighting: str) -> Scores:
    """Higher = keep. CKA is turned round: there higher = can be replaced."""
    if record.metric != "cka":
        return plans.block_scores(record, "drop", weighting)
    return {(r.stack, r.block): -r.score for r in record.rows if r.block == r.last}


def row(
    one: Bench, name: str, ratio: float, exact: SensitivityMap, record: SensitivityMap
) -> dict[str, Any]:
    result: dict[str, Any] = {"teacher": one.name, "scan": name, "ratio": ratio}
    for weighting in WEIGHTINGS:
        true = block_scores(exact, weighting)
        scores = block_scores(record, weighting)
        found = [scores[place] for place in true]
        result[weighting] = compared(np.array(list(true.values())), np.array(found))
    return result


def compared(true: np.ndarray, found: np.ndarray) -> dict[str, float]:
    half = len(true) // 2
    both = set(np.argsort(true)[:half]) & set(np.argsort(found)[:half])
    return {"spearman": float(spearmanr(true, found).statistic), "lowest": len(both) / half}


def samples_of(partial: Path) -> np.ndarray:
    """Every prompt's score from the partial file of the exact scan: (timesteps, blocks, prompts)."""
    calls = [call["scores"] for call in read(partial)[1].values()]
    batches = np.array([[values for *_, values in scores] for scores in calls])
    batches = batches.reshape(-1, TIMESTEPS, *batches.shape[1:])  # batch after batch
    return np.concatenate(list(batches), axis=2)


def fewer_prompts(one: Bench, samples: np.ndarray, count: int) -> dict[str, Any]:
    """The exact scan on `count` of the prompts, mean over draws."""
    result: dict[str, Any] = {
        "teacher": one.name,
        "scan": f"prediction, {count} of {PROMPTS} prompts",
        "ratio": count / PROMPTS,
    }
    for weighting in WEIGHTINGS:
        true = weighted(samples.mean(2), weighting)
        figures = []
        for seed in range(DRAWS):
            drawn = np.random.default_rng(seed).permutation(PROMPTS)[:count]
            found = weighted(samples[:, :, drawn].mean(2), weighting)
            figures.append(compared(true, found))
        result[weighting] = {
            key: float(np.mean([figure[key] for figure in figures])) for key in figures[0]
        }
    return result


def weighted(means: np.ndarray, weighting: str) -> np.ndarray:
    """Mean scores (timesteps, blocks) -> one per block, as plans.block_scores weighs timesteps."""
    if weighting == "normalised":
        means = means / means.mean(1, keepdims=True)
    total: np.ndarray = means.sum(0)
    return total


def race(
    one: Bench, exact: SensitivityMap, samples: np.ndarray, lowest: int, weighting: str
) -> dict[str, Any]:
    """A race for the lowest blocks on the exact scan's scores, mean over orders of the prompts."""
    true = block_scores(exact, weighting)
    figures = []
    for seed in range(ORDERS):
        order = np.random.default_rng(seed).permutation(PROMPTS)
        calls, result = replayed(samples[:, :, order], exact.timesteps, lowest, weighting)
        record = exact.model_copy(update={"rows": mean_rows(calls)})
        found = block_scores(record, weighting)
        chosen = {block for _, block in result.lowest}
        figures.append(
            {
                "ratio": sum(call.evaluations for call in calls) / exact.block_evaluations,
                "undecided": len(result.undecided),
                "spearman": float(spearmanr(list(true.values()), list(found.values())).statistic),
                "lowest": len(lowest_of(true, lowest) & chosen) / lowest,
                "lowest_by_rows": len(lowest_of(true, lowest) & lowest_of(found, lowest)) / lowest,
            }
        )
    means = {key: float(np.mean([figure[key] for figure in figures])) for key in figures[0]}
    return {
        "teacher": one.name,
        "scan": f"race, {lowest} of {len(true)}",
        "ratio": means.pop("ratio"),
        "undecided": means.pop("undecided"),
        weighting: means,
    }


def replayed(
    samples: np.ndarray, timesteps: Sequence[float], lowest: int, weighting: str
) -> tuple[list[CallScores], Race]:
    """The calls that a race would have measured, with their block forwards, and what it chose.

    The same as a scan with `--race` on these prompts: that measures the same scores and decides by
    the same class (tests/sensitivity/test_race.py).
    """
    depth = samples.shape[1]
    racing = Racing([Key("", block, "drop") for block in range(depth)], lowest, weighting)
    calls: list[CallScores] = []
    for start in range(0, PROMPTS, BATCH):
        if not racing.undecided:
            break
        forwards = depth + sum(depth - 1 - block for block in racing.undecided)
        batch = samples[:, :, start : start + BATCH]
        for time, timestep in enumerate(timesteps):
            scores = {racing.keys[b]: batch[time, b].tolist() for b in racing.undecided}
            calls.append(CallScores(start, timestep, scores, evaluations=forwards))
        racing.look(calls)
    return calls, racing.result(calls)


def lowest_of(scores: Scores, count: int) -> set[int]:
    return {block for _, block in sorted(scores, key=lambda place: scores[place])[:count]}


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| teacher | scan | block forwards | Spearman, normalised | lowest | uniform | lowest |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for one in found:
        cells = []
        for weighting in WEIGHTINGS:
            figures = one.get(weighting)
            cells.append(f"{figures['spearman']:.2f}" if figures else "")
            cells.append(f"{100 * figures['lowest']:.0f} %" if figures else "")
        lines.append(
            f"| {one['teacher']} | {one['scan']} | {100 * one['ratio']:.1f} % | "
            + " | ".join(cells)
            + " |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--teachers", default="demo,demo-12")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in arguments.teachers.split(","):
            found += rows(bench(name, Path(cache)))
    ratio = max(one["ratio"] for one in found if one["scan"].startswith("race"))
    print(json.dumps({"ratio": ratio, "rows": found}) if arguments.json else table(found))


if __name__ == "__main__":
    main()
