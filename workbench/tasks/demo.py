"""The kind that shows it all: the bundled teacher is planned, cut, distilled and compared, in
minutes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..comparison.statistics import paired_difference
from ..records import Comparison, Plan, Progress
from ..specs import BuildSpec, ProfileSpec
from .build import build
from .compare import PER_CATEGORY, compare
from .context import Context
from .distill import distill
from .info import bundled_map, describe
from .plan import plan
from .profile import profile

MINUTES = 6.0
# Neighbours of this teacher are alike by construction: averaged pairs, and blocks that only read
# the text, known without measuring.
PLAN = {"rule": "uniform", "keep": 12, "init": "mean", "gain": "length", "slim_from": 1}
NAMES = ("teacher", "student-built", "student")


def demo(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: minutes (of distillation), prompts_per_category, steps, scenes (to train on), out.
    Result: DESIGN section 9.

    A stopped demo goes on where it was: the plan and the built student are there, distillation has
    its checkpoint.
    """
    began = time.monotonic()
    minutes = float(spec["minutes"]) if spec.get("minutes") is not None else MINUTES
    tag = context.folder.name if context.folder else "demo"
    space = context.store.workspace
    planned, built, trained = (
        space / "plans" / f"{tag}.yaml",
        space / "students" / f"{tag}-built",
        space / "students" / f"{tag}-student",
    )
    out = Path(spec.get("out") or space / "comparisons" / tag)
    stages = Stages(context, minutes)
    if bundled_map(describe("demo", context.store)) is None:
        quick = {
            "teacher": "demo",
            "timesteps": 4,
            "steps": spec.get("steps") or 10,
            "edits": ["drop"],
        }
        yield from stages.run("profile", profile(ProfileSpec.parse(quick), context))
    if not planned.exists():
        yield from stages.run(
            "plan", plan({"teacher": "demo", **PLAN, "out": str(planned)}, context)
        )
    if not (built / "card.json").exists():
        yield from stages.run("build", build(BuildSpec(plan=str(planned), out=str(built)), context))
    if not (trained / "card.json").exists():
        wanted = {
            "student": str(built),
            "recipe": "workbench",
            "minutes": minutes,
            "out": str(trained),
            "scenes": spec.get("scenes"),
        }
        yield from stages.run("distill", distill(wanted, context))
    wanted = {
        "models": ["demo", str(built), str(trained)],
        "names": NAMES,
        "suite": "scenes",
        "steps": spec.get("steps"),
        "prompts_per_category": spec.get("prompts_per_category") or PER_CATEGORY,
        "scorers": ["scenes", "ssim"],
        "out": str(out),
    }
    yield from stages.run("compare", compare(wanted, context))
    if not stages.stopped:
        result = summed_up(Comparison.load(out / "comparison.json"), out, planned)
        yield Progress(
            step=stages.total,
            total=stages.total,
            message="done",
            result={"seconds": time.monotonic() - began, **result},
        )


class Stages:
    """Runs kinds one after the other as one progress, in seconds expected; stops when one was
    stopped.
    """

    def __init__(self, context: Context, minutes: float):
        self.context, self.stopped, self.at = context, False, 0
        self.expected = {
            "profile": 120,
            "plan": 2,
            "build": 8,
            "data": 50,
            "distill": int(60 * minutes),
            "compare": 200,
        }
        self.total = sum(self.expected.values()) - self.expected["profile"]

    def run(self, name: str, work: Iterator[Progress]) -> Iterator[Progress]:
        if self.stopped:
            return
        finished = False
        for progress in work:
            finished = progress.result is not None
            # distill fills its data cache first; steps of training are those with metrics
            phase = "data" if name == "distill" and not progress.metrics and not finished else name
            weight = self.expected[phase]
            before = sum(list(self.expected.values())[1 : list(self.expected).index(phase)])
            share = 1.0 if finished else progress.step / max(progress.total, 1)
            message = (
                f"{name} {progress.step}/{progress.total} {progress.message}"
                if progress.total > 1
                else f"{name} {progress.message}"
            )
            metrics = (
                {"step": progress.step, **progress.metrics}
                if name == "distill" and progress.metrics
                else {}
            )
            self.at = max(self.at, before + int(weight * share))
            yield Progress(step=self.at, total=self.total, message=message.strip(), metrics=metrics)
        self.stopped = not finished


def summed_up(comparison: Comparison, out: Path, planned: Path) -> dict[str, Any]:
    """The three models with their scene scores (shares of 1), intervals and the student's paired
    gain over the built one.
    """
    models: list[dict[str, Any]] = []
    named = zip(comparison.prompts, categories(comparison), strict=True)
    items = [
        {"prompt": prompt, "category": category, "index": index}
        for index, (prompt, category) in enumerate(named)
    ]
    for model in comparison.models:
        score = model.scores["scenes"]
        names = ("overall", *(k for k in dict.fromkeys(categories(comparison)) if k in score))
        models.append(
            {
                "name": model.name,
                "parameters": model.parameters,
                "ms_per_step": model.ms_per_step,
                "source": model.source,
                "scores": {k: score[k] for k in names},
                "interval": [score["low"], score["high"]],
                "intervals": score["intervals"],
                "retention": model.retention["scenes"],
                "ssim": model.scores["ssim"]["overall"],
                "difference": model.difference.get("scenes"),
            }
        )
    built, student = (m.scores["scenes"]["per_image"] for m in comparison.models[1:3])
    models[2]["gain_over_built"] = paired_difference(student, built, items)
    return {
        "models": models,
        "page": str(out / "index.html"),
        "plan": str(planned),
        "depth": Plan.load(planned).depth(),
    }


def categories(comparison: Comparison) -> list[str]:
    """Category of each prompt: scenes come category by category, equally many of each."""
    from ..demo.scenes import CATEGORIES

    each = len(comparison.prompts) // len(CATEGORIES)
    return [category for category in CATEGORIES for _ in range(each)]
