"""The kind that looks at the results: compare. It chooses prompts and scorers; the demo's scene
scorer is plugged in here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..comparison.run import Suite
from ..comparison.run import compare as side_by_side
from ..comparison.scorers import AnyScorer, named
from ..comparison.statistics import summary
from ..records import BadInput, Comparison, Progress
from .context import Context, until
from .prompts import GENERAL_PROMPTS, scenes
from .resolve import BUNDLED, bundled, locate, sampling

PER_CATEGORY = 40


class SceneScorer:
    """Share of pictures that show exactly what the demo's prompt says, 0 to 1; needs items with a
    `scene`.
    """

    def score(
        self, images: Sequence[Image.Image], items: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        from ..demo.scenes import Scene
        from ..demo.scorer import score_image

        if not all("scene" in item for item in items):
            raise BadInput(
                "prompts without scenes",
                "the suite `scenes` for the scorer `scenes`",
                "leave that scorer out",
            )
        values = [
            float(score_image(np.asarray(image.convert("RGB")), Scene.from_dict(item["scene"])).ok)
            for image, item in zip(images, items, strict=True)
        ]
        return {
            **summary(values, items),
            "per_image": values,
            "unit": "share of pictures that show what the prompt says",
            "direction": "higher = better",
        }


def compare(spec: dict[str, Any], context: Context) -> Iterator[Progress]:
    """spec: models (the first is the reference), names, suite, prompts_per_category, seeds, steps,
    guidance, size, scorers, dtype, out.
    """
    found = [locate(source, context.store) for source in spec["models"]]
    if len(found) < 2:
        raise BadInput(
            f"{len(found)} model", "a teacher and at least one student", "name a student too"
        )
    path, name = found[0]
    demo = bundled(path, name)
    suite = suite_of(spec, demo)
    scorers = scorers_of(spec.get("scorers"), suite)
    how = sampling(path, name, spec)
    names = list(
        spec.get("names") or distinct([n if n in BUNDLED else Path(n).name for _, n in found])
    )
    out = Path(spec.get("out") or resumed(context, "-".join(names)[:60])).absolute()
    run = side_by_side(
        list(zip(names, [p for p, _ in found], strict=True)),
        suite,
        seeds=range(int(spec.get("seeds") or 1)),
        steps=how.steps,
        guidance=how.guidance,
        size=how.size,
        scorers=scorers,
        out=out,
        device=context.device,
        dtype=spec.get("dtype") or ("bf16" if demo else None),
        batch=16 if demo else 4,
    )
    for progress in until(context.stop, run):
        if progress.result is None:
            yield progress
        else:
            context.store.add("comparison", out)
            yield progress.model_copy(update={"result": facts(progress.result, out)})


def resumed(context: Context, name: str) -> Path:
    """A folder for the comparison in the workspace; the same one when the job goes on."""
    if context.folder is None:
        return context.store.out("comparison", name)
    return context.store.workspace / "comparisons" / f"{context.folder.name}-{name}"


def facts(comparison: Comparison, out: Path) -> dict[str, Any]:
    """A comparison as the command line prints it: without the single pictures' scores, which
    comparison.json has.
    """
    models = []
    for model in comparison.models:
        scores = {
            scorer: {k: v for k, v in row.items() if k != "per_image"}
            for scorer, row in model.scores.items()
        }
        models.append({**model.model_dump(mode="json"), "scores": scores})
    return {
        "comparison": str(out / "comparison.json"),
        "page": str(out / "index.html"),
        "seconds": comparison.seconds,
        "suite": comparison.suite,
        "prompts": len(comparison.prompts),
        "seeds": len(comparison.seeds),
        "steps": comparison.steps,
        "guidance": comparison.guidance,
        "models": models,
        "retention": {m["name"]: m["retention"] for m in models},
    }


def distinct(names: list[str]) -> list[str]:
    """The same names, numbered where they repeat."""
    return [
        n if names.count(n) == 1 else f"{n}-{names[:i].count(n) + 1}" for i, n in enumerate(names)
    ]


def suite_of(spec: dict[str, Any], demo: bool) -> Suite:
    """The prompts: a file's; else the demo's scenes for models of the demo; else a general list."""
    given = spec.get("suite")
    if given not in (None, "scenes", "general"):
        return Suite.load(given)
    if given == "scenes" or (given is None and demo):
        return scene_suite(int(spec.get("prompts_per_category") or PER_CATEGORY))
    return Suite("general", [{"prompt": prompt} for prompt in GENERAL_PROMPTS])


def scene_suite(per_category: int) -> Suite:
    """The first scenes of each category from evaluation seeds, which no training has seen."""
    items = [
        {"prompt": caption, "category": scene["category"], "scene": scene}
        for caption, scene in scenes(per_category, "eval")
    ]
    return Suite("scenes", items)


def scorers_of(names: list[str] | None, suite: Suite) -> dict[str, AnyScorer]:
    """Scorers by name; all that fit the suite where none is named."""
    has_scenes = all("scene" in item for item in suite.items)
    if names is None:
        names = ["scenes", "ssim"] if has_scenes else ["ssim", "psnr"]
    if "scenes" in names and not has_scenes:
        raise BadInput(
            "scorer scenes for prompts without scenes",
            "the suite `scenes`",
            "leave it out of --scorers",
        )
    return {name: SceneScorer() if name == "scenes" else named([name])[name] for name in names}
