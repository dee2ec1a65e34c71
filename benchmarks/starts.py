"""Does the init with the lower error before training have the lower error after it?
`python benchmarks/starts.py [--teacher NAME] [--steps N] [--fitted | --joins] [--json]`

Half of the blocks of a bundled teacher are removed, in even pairs. The pairs are initialised from
their first block, from their last, with the lowest error before training (best of first, last,
mean, with gain 1 or 2), and as in the recipe `workbench`: another init than first only where it
halves the error that a merge adds (`margin: 2`). Each student trains end to end on the same
batches, with the recipe's settings and fewer steps. before, after: relative squared error of the
prediction, mean over 6 timesteps and 10 prompts that were not used for any choice. ratio: after,
divided by that of init first. With --fitted the starts are first, mean, and mean with gain 2, each
as it is and with its output projections fitted to the teacher's states (`fit` of a stage). With
--joins nothing is trained: for each pair, merged alone, the
error with init first, the lowest error of all other inits, and the factor between them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from zero_shot import meters  # noqa: E402

from workbench import demo, models, plans, rules, surgery  # noqa: E402
from workbench.demo.scene_data import cache_scenes  # noqa: E402
from workbench.distillation.loop import distill  # noqa: E402
from workbench.recipes import table as recipes  # noqa: E402
from workbench.records import DistillSpec, Plan, Span, Teacher  # noqa: E402
from workbench.rules.edits import INITS  # noqa: E402
from workbench.sensitivity.error import relative_change  # noqa: E402
from workbench.sensitivity.measured_error import PlanMeter  # noqa: E402
from workbench.training.batch_source import LatentSource  # noqa: E402
from workbench.training.data_sources import CacheRequest  # noqa: E402

SCENES = 4096


@dataclass(frozen=True)
class Start:
    """How the pairs begin. fit: their output projections are fitted to the teacher's states."""

    name: str
    plan: Plan
    fit: bool = False


def half_of(teacher: Teacher) -> dict[str, int]:
    return {stack.path: stack.depth // 2 for stack in teacher.stacks}


def fitted_choices(teacher: Teacher) -> Iterator[Start]:
    keep = half_of(teacher)
    for name, options in (
        ("first", {"init": "first"}),
        ("mean, gain 2", {"init": "mean", "gain": "length"}),
        ("mean", {"init": "mean"}),
    ):
        plan = rules.propose("uniform", teacher, keep, **options)
        yield Start(name, plan)
        yield Start(f"{name}, fitted", plan, fit=True)


def choices(teacher: Teacher, meter: PlanMeter) -> Iterator[Start]:
    keep = half_of(teacher)
    measured: dict[str, Any] = {
        "measure": meter.error,
        "settle": meter.settle,
        "edits": "join",
        "longest": 2,
    }
    yield Start("first", rules.propose("uniform", teacher, keep, init="first"))
    yield Start("last", rules.propose("uniform", teacher, keep, init="last"))
    best = rules.propose("greedy", teacher, keep, **measured)
    yield Start("lowest error before training", best)
    halved = rules.propose("greedy", teacher, keep, margin=2, **measured)
    yield Start("the same, if it halves the error", halved)


def joins(name: str, cache: Path) -> list[dict[str, Any]]:
    """Each even pair merged alone, with the error that greedy measures."""
    folder = Path(demo.teacher_folder(name, cache))
    teacher = models.describe(folder, name)
    meter, _ = meters(folder, teacher)
    rows: list[dict[str, Any]] = []
    for path, spans in plans.identity(teacher).stacks.items():
        for at in range(0, len(spans) - 1, 2):
            errors: dict[str, float] = {}
            for init in INITS:
                for gain in (1.0, 2.0):
                    pair = Span(blocks=(at, at + 1), init=init, gain=gain)
                    plan = Plan(
                        teacher=name,
                        family=teacher.family,
                        stacks={path: [*spans[:at], pair, *spans[at + 2 :]]},
                    )
                    errors[f"{init}, gain {gain:g}"] = meter.error(plan)
            first = errors.pop("first, gain 1")
            best = min(errors, key=lambda start: errors[start])
            rows.append(
                {
                    "teacher": name,
                    "blocks": [at, at + 1],
                    "first": first,
                    "best": best,
                    "error": errors[best],
                    "ratio": first / errors[best],
                }
            )
    return rows


def joins_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| pair | as its first block | best other start | its error | times less |",
        "|---|---:|---|---:|---:|",
    ]
    lines += [
        f"| {r['blocks'][0]}-{r['blocks'][1]} | {r['first']:.3g} | {r['best']} | "
        f"{r['error']:.3g} | {r['ratio']:.1f} |"
        for r in rows
    ]
    return "\n".join(lines)


@dataclass
class Training:
    """A student that is built, fitted and trained, its teacher, and what it is judged by."""

    student: nn.Module
    teacher: nn.Module
    plan: Plan
    source: LatentSource
    judge: PlanMeter

    def run(self, spec: DistillSpec) -> float:
        """Train; the error after it."""
        for _ in distill(self.student, self.teacher, self.plan, spec, self.source):
            pass
        return error(self.judge, self.student)


@torch.no_grad()
def error(judge: PlanMeter, student: nn.Module) -> float:
    """As PlanMeter.error, of a model that was built and trained."""
    errors = [
        relative_change(teachers, models.prediction(student(**inputs)))
        for teachers, inputs in zip(judge.references, judge.inputs, strict=True)
    ]
    return float(torch.cat(errors).mean())


def measure(name: str, steps: int, fitted: bool, cache: Path) -> list[dict[str, Any]]:
    folder = Path(demo.teacher_folder(name, cache))
    teacher = models.describe(folder, name)
    meter, judge = meters(folder, teacher)
    request = CacheRequest(
        "scenes",
        name,
        size=demo.SIZE,
        steps=demo.DEFAULT_STEPS,
        guidance=demo.DEFAULT_CFG,
        count=SCENES,
    )
    pipe = models.load_pipeline(folder, device="cpu")
    list(cache_scenes(pipe, request, cache / "scenes", lambda: False))
    source = LatentSource.from_folder(cache / "scenes")
    usual = recipes.load("workbench").distill
    spec = usual.model_copy(
        update={"stages": [usual.stages[0].model_copy(update={"steps": steps})]}
    )
    fit = {"steps": 0, "warmup": 0, "fit": "output-projections"}
    fit_alone = spec.model_copy(update={"stages": [spec.stages[0].model_copy(update=fit)]})
    whole = models.load_transformer(folder)
    rows: list[dict[str, Any]] = []
    starts = fitted_choices(teacher) if fitted else choices(teacher, meter)
    for at, start in enumerate(starts):
        plan = plans.cut_free(start.plan, teacher)
        list(surgery.build(folder, teacher, plan, cache / str(at)))
        student = models.load_transformer(cache / str(at))
        training = Training(student, whole, plan, source, judge)
        before = training.run(fit_alone) if start.fit else judge.error(plan)
        after = training.run(spec)
        rows.append(
            {
                "teacher": name,
                "start": start.name,
                "before": before,
                "after": after,
                "ratio": after / (rows[0]["after"] if rows else after),
                "plan": [span.as_yaml() for span in next(iter(plan.stacks.values()))],
            }
        )
        print(f"{start.name}: {before:.3g} before, {after:.3g} after", file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| start of the pairs | before training | after | ratio |", "|---|---:|---:|---:|"]
    return "\n".join(
        [
            *lines,
            *(
                f"| {r['start']} | {r['before']:.3g} | {r['after']:.3g} | {r['ratio']:.2f} |"
                for r in rows
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--teacher", default="demo-12", choices=("demo", "demo-12"))
    parser.add_argument("--joins", action="store_true", help="each pair alone, nothing trained")
    parser.add_argument("--fitted", action="store_true", help="fitted output projections")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = (
            joins(arguments.teacher, Path(cache))
            if arguments.joins
            else measure(arguments.teacher, arguments.steps, arguments.fitted, Path(cache))
        )
    unit = {"unit": "relative squared error of the prediction", "direction": "lower is better"}
    steps = {} if arguments.joins else {"steps": arguments.steps}
    print(
        json.dumps({"rows": rows, **steps, **unit})
        if arguments.json
        else (joins_table if arguments.joins else table)(rows)
    )


if __name__ == "__main__":
    main()
