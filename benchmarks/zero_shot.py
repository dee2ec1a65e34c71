"""How far a student is from its teacher before any training: `python benchmarks/zero_shot.py
[--json] [--text]`.

A quarter and half of the blocks of each bundled teacher go, by several ways to choose the spans
(even; the ranking of single removals from the bundled map, weighted for high noise as Amber-Image
or uniformly; greedy, re-measured after every edit) and four ways to start a span's block: dropped
(the first block's weights), averaged, averaged with gain = length, dropped with gain = length;
greedy also with the best of all for every span, and a search from even spans. Then what becomes of
the text of all blocks but the first: it stays, is only read (--slim-from 1), or shares the image's
weights (--single-from 1). error: relative squared error of the prediction, mean over 6 timesteps
and 10 prompts that no choice was made on (greedy and search measure on 5 others, at 4 timesteps).
seconds: CPU seconds of the choice; the smaller student's greedy goes on from what the larger one's
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import demo, models, plans, rules  # noqa: E402
from workbench.demo.scenes import caption, prompt_set  # noqa: E402
from workbench.records import Plan, SensitivityMap, Teacher  # noqa: E402
from workbench.sensitivity.measured_error import PlanMeter  # noqa: E402

SHAPES: dict[str, dict[str, Any]] = {
    "dropped": {"init": "first", "gain": 1.0},
    "averaged": {"init": "mean", "gain": 1.0},
    "averaged, gain": {"init": "mean", "gain": "length"},
    "dropped, gain": {"init": "first", "gain": "length"},
}
SHARES = (0.75, 0.5)
TRIES = 200
TEXT: dict[str, dict[str, Any]] = {
    "kept": {},
    "text-slim": {"slim_from": 1},
    "single-stream": {"single_from": 1},
}


def meters(folder: Path, teacher: Teacher) -> tuple[PlanMeter, PlanMeter]:
    """What choices are made by, and what they are judged by: other prompts, other seeds."""
    pipe = models.load_pipeline(folder, device="cpu")

    def calls(split: str, count: int, timesteps: int, first_seed: int) -> list[models.Call]:
        prompts = [caption(scene) for scene in prompt_set(count, split)]
        seeds = range(first_seed, first_seed + len(prompts))
        return list(
            models.trajectories(
                pipe,
                prompts,
                seeds=seeds,
                steps=demo.DEFAULT_STEPS,
                guidance=demo.DEFAULT_CFG,
                size=demo.SIZE,
                timesteps=timesteps,
                batch=10,
            )
        )

    return (
        PlanMeter(pipe.transformer, teacher, calls("validation", 1, 4, 0)),
        PlanMeter(pipe.transformer, teacher, calls("eval", 2, 6, 1000)),
    )


def choices(
    teacher: Teacher, keep: dict[str, int], scores: SensitivityMap, meter: PlanMeter
) -> Iterator[tuple[str, str, Plan, float]]:
    """(how the spans were chosen, how their blocks start, the plan, CPU seconds)."""
    measured = {"measure": meter.error, "settle": meter.settle}
    for name, shape in SHAPES.items():
        yield "even spans", name, rules.propose("uniform", teacher, keep, **shape), 0.0
        yield (
            "ranked, high noise",
            name,
            rules.propose("amber", teacher, keep, scores, **shape),
            0.0,
        )
        yield (
            "ranked, uniform",
            name,
            rules.propose("amber", teacher, keep, scores, timestep_weight="uniform", **shape),
            0.0,
        )
    for name, shape in {**SHAPES, "best of a span": {}}.items():
        began = time.process_time()
        plan = rules.propose("greedy", teacher, keep, edits="join", **shape, **measured)
        yield "greedy", name, plan, time.process_time() - began
    began = time.process_time()
    start = rules.propose("uniform", teacher, keep, init="first")
    plan = rules.propose("search", teacher, keep, start=start, tries=TRIES, **measured)
    yield f"search, {TRIES} plans", "best of a span", plan, time.process_time() - began


def texts(name: str, teacher: Teacher, judge: PlanMeter) -> Iterator[dict[str, Any]]:
    """All blocks, and half of them in pairs that start as they do best here."""
    depth = teacher.stacks[0].depth
    shape = SHAPES["averaged, gain" if name == "demo" else "dropped, gain"]
    for keep in (depth, depth // 2):
        for text, more in TEXT.items():
            plan = rules.propose(
                "uniform", teacher, {s.path: keep for s in teacher.stacks}, **shape, **more
            )
            yield {
                "teacher": name,
                "depth": depth,
                "keep": keep,
                "text": text,
                "error": judge.error(plan),
                "ratio": plans.parameters(plan, teacher) / teacher.parameters,
            }


def measure(name: str, cache: Path, text: bool) -> list[dict[str, Any]]:
    folder = demo.teacher_folder(name, cache)
    teacher = models.describe(Path(folder), name)
    scores = SensitivityMap.load(
        Path(demo.__file__).parent
        / ("sensitivity.json" if name == "demo" else "sensitivity-12.json")
    )
    meter, judge = meters(Path(folder), teacher)
    rows: list[dict[str, Any]] = []
    if text:
        return list(texts(name, teacher, judge))
    for share in SHARES:
        keep = {s.path: round(s.depth * share) for s in teacher.stacks}
        for spans, start, plan, seconds in choices(teacher, keep, scores, meter):
            print(f"{name}, {share}: {spans}, {start}", file=sys.stderr, flush=True)
            rows.append(
                {
                    "teacher": name,
                    "depth": teacher.stacks[0].depth,
                    "keep": sum(keep.values()),
                    "spans": spans,
                    "start": start,
                    "error": judge.error(plan),
                    "seconds": round(seconds, 1),
                    "plan": [span.as_yaml() for span in next(iter(plan.stacks.values()))],
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line per teacher and choice of spans, a column per start."""
    starts = list(dict.fromkeys(row["start"] for row in rows))
    lines = [
        "| teacher | blocks | spans | " + " | ".join(starts) + " |",
        "|" + "---|" * (3 + len(starts)),
    ]
    for key in dict.fromkeys(
        (row["teacher"], row["depth"], row["keep"], row["spans"]) for row in rows
    ):
        found = {
            row["start"]: f"{row['error']:.3g}"
            for row in rows
            if (row["teacher"], row["depth"], row["keep"], row["spans"]) == key
        }
        lines.append(
            f"| {key[0]} | {key[1]} to {key[2]} | {key[3]} "
            f"| " + " | ".join(found.get(start, "") for start in starts) + " |"
        )
    return "\n".join(lines)


def ratio(rows: list[dict[str, Any]]) -> float | None:
    """The lowest error of a choice over that of even spans, dropped; the largest of all sizes."""
    errors: dict[tuple[str, int], list[float]] = {}
    for row in rows:  # even spans, dropped, come first
        errors.setdefault((row["teacher"], row["keep"]), []).append(row["error"])
    return max((min(of_size) / of_size[0] for of_size in errors.values()), default=None)


def text_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| teacher | blocks | text of all but the first | parameters | error |",
        "|---|---|---|---:|---:|",
    ]
    lines += [
        f"| {r['teacher']} | {r['depth']} to {r['keep']} | {r['text']} | "
        f"{100 * r['ratio']:.1f} % | {r['error']:.3g} |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--teachers", default="demo,demo-12")
    parser.add_argument("--text", action="store_true", help="only what becomes of the text stream")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        names = arguments.teachers.split(",")
        rows = (
            []
            if arguments.text
            else [row for name in names for row in measure(name, Path(cache), False)]
        )
        text = [row for name in names for row in measure(name, Path(cache), True)]
    print(
        json.dumps(
            {
                "ratio": ratio(rows),
                "rows": rows,
                "text": text,
                "unit": "relative squared error of the prediction",
                "direction": "lower is better",
            }
        )
        if arguments.json
        else "\n\n".join([*([table(rows)] if rows else []), text_table(text)])
    )


if __name__ == "__main__":
    main()
