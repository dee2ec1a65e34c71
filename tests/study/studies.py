"""Studies for tests: made without pictures, and raters whose preferences are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from PIL import Image

from workbench.records import Comparison, ModelResult, Study, Vote
from workbench.study.create import Design, Source, checks_of, items_of, rows_of
from workbench.study.sheets import Shown, sheet
from workbench.study.votes import Ballots

MODELS = ("teacher", "student-a", "student-b")
Answer = Callable[[int, Shown], dict[str, object]]


def comparison(models: Sequence[str] = MODELS, prompts: int = 6, seeds: int = 2) -> Comparison:
    results = []
    images = {}
    for name in models:
        results.append(
            ModelResult(
                name=name, source=f"/models/{name}", parameters=1, bytes=1, ms_per_step=1.0,
                scores={}, retention={},
            )
        )  # fmt: skip
        images[name] = [f"images/{name}/{number:04d}.png" for number in range(prompts * seeds)]
    return Comparison(
        suite="scenes",
        prompts=[f"prompt {number}" for number in range(prompts)],
        categories=[("text", "count")[number % 2] for number in range(prompts)],
        seeds=list(range(seeds)),
        steps=2,
        guidance=1.0,
        size=24,
        models=results,
        images=images,
    )


def with_pictures(folder: Path, colours: Sequence[tuple[int, int, int]], **options: int) -> Source:
    """A comparison on disk, each model's pictures of one colour with a little noise."""
    record = comparison(MODELS[: len(colours)], **options)
    for colour, files in zip(colours, record.images.values(), strict=True):
        for number, name in enumerate(files):
            draws = Random(number)
            image = Image.new("RGB", (24, 24), colour)
            for _ in range(40):
                place = (draws.randrange(24), draws.randrange(24))
                image.putpixel(place, (draws.randrange(256),) * 3)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
    record.save(folder / "comparison.json")
    return Source.load(folder)


def study(kind: str = "pairs", prompts: int = 6, seeds: int = 2, **options: object) -> Study:
    """A study without a folder."""
    models = list(options.pop("models", MODELS))  # type: ignore[call-overload]
    design = Design(kind=kind, **options)  # type: ignore[arg-type]
    rows = rows_of(comparison(models, prompts, seeds), models, design)
    checks = checks_of(design, len(rows), models)
    return Study(
        kind=design.kind,
        models=models,
        rows=rows,
        items=items_of(design, len(rows), models),
        checks=checks,
        per_rater=design.per_rater,
        checks_per_rater=min(design.checks, len(checks)),
        most_failed=design.most_failed,
        raters=design.raters,
        seed=design.seed,
        picture_bytes=1,
    )


def voted(record: Study, answer: Answer, raters: int) -> Ballots:
    """Every rater votes on all items."""
    ballots = Ballots()
    for rater in range(raters):
        for position, shown in enumerate(sheet(record, rater)):
            vote = Vote(
                rater=rater,
                position=position,
                item=shown.number,
                check=shown.check,
                slots=shown.slots,
                **answer(rater, shown),  # type: ignore[arg-type]
            )
            ballots.add(vote)
    return ballots


def looks(shown: Shown) -> dict[str, object]:
    """The answer to an attention check of someone who looks."""
    if "one" in shown.slots:
        return {"quality": 1, "alignment": 1}
    if "x" in shown.slots:
        return {"choice": "a" if shown.slots["a"] == shown.slots["x"] else "b"}
    return {"choice": "b" if shown.slots["a"].startswith("*") else "a"}


def preferring(log_odds: dict[str, float], seed: int, ties: float = 0.2, spread: float = 0.3):
    """Raters who choose by Bradley-Terry strengths, each with some taste of their own."""
    draws = Random(seed)
    tastes: dict[tuple[int, str], float] = {}

    def answer(rater: int, shown: Shown) -> dict[str, object]:
        if shown.check:
            return looks(shown)
        values = []
        for slot in ("a", "b"):
            model = shown.slots[slot]  # type: ignore[index]
            taste = tastes.setdefault((rater, model), draws.gauss(0, spread))
            values.append(log_odds[model] + taste)
        if draws.random() < ties:
            return {"choice": "tie"}
        chance = 1 / (1 + math.exp(values[1] - values[0]))
        return {"choice": "a" if draws.random() < chance else "b"}

    return answer
