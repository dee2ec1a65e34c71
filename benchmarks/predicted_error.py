"""How far the predicted error of a plan is from the measured one, on averaged, dropped and long
spans: `python benchmarks/predicted_error.py [--json]`.

The map is measured on the same five prompts and four timesteps as the plans. predicted: sum of the
map's scores of the edits that the plan makes. measured: relative squared error of the prediction
with all edits made at once. Lower is better, for both. ratio: measured over predicted; on top the
largest of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workbench import demo, models, plans  # noqa: E402
from workbench.demo.scenes import caption, prompt_set  # noqa: E402
from workbench.plans.predicted_error import predicted_error  # noqa: E402
from workbench.records import Init, Plan, SensitivityMap, Span, Teacher  # noqa: E402
from workbench.sensitivity.measured_error import PlanMeter  # noqa: E402
from workbench.sensitivity.profiling import profile  # noqa: E402

STACK = "transformer_blocks"
PROMPTS = 5
TIMESTEPS = 4
EDITS = ("drop", "merge", "merge:first", "merge:mean:1")
# length of all spans, init, gain
SHAPES: dict[str, tuple[int, Init, float]] = {
    "12 pairs, mean, gain 2": (2, "mean", 2.0),
    "12 pairs, mean, gain 1": (2, "mean", 1.0),
    "12 pairs, dropped": (2, "first", 1.0),
    "12 pairs, first, gain 2": (2, "first", 2.0),
    "8 spans of three, mean, gain 3": (3, "mean", 3.0),
    "6 spans of four, mean, gain 4": (4, "mean", 4.0),
    "6 spans of four, dropped": (4, "first", 1.0),
}


def even_plan(teacher: Teacher, length: int, init: Init, gain: float) -> Plan:
    """Every `length` neighbouring blocks of the teacher become one."""
    spans = []
    for first in range(0, teacher.stack(STACK).depth, length):
        spans.append(Span(blocks=(first, first + length - 1), init=init, gain=gain))
    return Plan(teacher="demo", family=teacher.family, stacks={STACK: spans})


def measured_map(model: Any, teacher: Teacher, calls: list[models.Call]) -> SensitivityMap:
    """The map of the edits that the plans are made of."""
    result = None
    for state in profile(model.transformer, teacher, calls, edits=EDITS):
        result = state.result
    assert isinstance(result, SensitivityMap)
    return result


def rows() -> Iterator[dict[str, Any]]:
    """One row per shape of the spans."""
    folder = demo.teacher_folder("demo", Path("workspace"))
    teacher = models.describe(folder, "demo")
    model = models.load_pipeline(folder, device="cpu")
    prompts = [caption(scene) for scene in prompt_set(1, "validation")]
    assert len(prompts) == PROMPTS
    sampled = models.trajectories(
        model,
        prompts,
        seeds=range(PROMPTS),
        steps=demo.DEFAULT_STEPS,
        guidance=demo.DEFAULT_CFG,
        size=demo.SIZE,
        timesteps=TIMESTEPS,
    )
    calls = list(sampled)
    sensitivity = measured_map(model, teacher, calls)
    meter = PlanMeter(model.transformer, teacher, calls)
    for name, (length, init, gain) in SHAPES.items():
        plan = even_plan(teacher, length, init, gain)
        plans.check(plan, teacher)
        predicted = predicted_error(plan, sensitivity).value
        assert predicted is not None, "the map has every edit of these plans"
        measured = meter.error(plan)
        ratio = measured / predicted
        yield {"spans": name, "predicted": predicted, "measured": measured, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    as_json = parser.parse_args().json
    table = []
    for row in rows():
        table.append(row)
        if not as_json:
            print(f"{row['spans']:32} {row['predicted']:8.3g} {row['measured']:8.3g}", flush=True)
    if as_json:
        print(json.dumps({"ratio": max(row["ratio"] for row in table), "rows": table}))


if __name__ == "__main__":
    main()
