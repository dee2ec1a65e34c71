"""Models side by side: the same prompts and seeds through each, their pictures, scores, sizes and
speeds, and one page.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image

from .. import models
from ..models import checkpoints
from ..records import BadInput, Comparison, ModelResult, Progress, numel, read_text, write_atomic
from ..training.encode import first_call
from . import scorers
from .scorers import AnyScorer
from .statistics import paired_difference

# timed forwards per model, and the time after which fewer (at least 3) must do
ROUNDS, SECONDS = 15, 60.0


@dataclass(frozen=True)
class Suite:
    """Prompts to compare on: items have `prompt`, maybe `category`, and whatever a scorer needs."""

    name: str
    items: list[dict[str, Any]]

    @classmethod
    def load(cls, path: Path | str) -> Suite:
        """Read JSON lines (objects with `prompt` or `caption`), or plain text with a prompt a line.

        Raises BadInput, naming the line, for what is neither, and for a missing, empty or not UTF-8
        file.
        """
        text = read_text(Path(path), "suite").lstrip("\ufeff")
        lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        if not lines:
            raise BadInput(
                f"suite {path} is empty", "a prompt a line, or JSON lines with a prompt", "fill it"
            )
        plain = Path(path).suffix.lower() not in (".jsonl", ".json") and not lines[0][1].startswith(
            "{"
        )
        items = [
            {"prompt": line} if plain else cls._item(line, f"{path} line {n}") for n, line in lines
        ]
        return cls(Path(path).stem, items)

    @staticmethod
    def _item(line: str, where: str) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{where} is not JSON ({error.msg})", "an object with a prompt", "mend that line"
            ) from None
        prompt = row.get("prompt", row.get("caption")) if isinstance(row, dict) else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise BadInput(
                f"{where} has no prompt", "a text under `prompt` or `caption`", "add one"
            )
        return {**row, "prompt": prompt}


def compare(
    pairs: Sequence[tuple[str, Path | str]],
    suite: Suite,
    *,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    scorers: Mapping[str, AnyScorer],
    out: Path | str,
    size: int,
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    batch: int = 8,
) -> Iterator[Progress]:
    """Sample every prompt with every seed from every model and score the pictures; the first model
    is what others are held against.

    Result: the Comparison, also written to `out` as comparison.json with index.html. Picture
    i*len(seeds)+j is prompt i with seed j. A comparison that was interrupted goes on with the
    pictures it has, if the settings and weights are the same. ms_per_step: median time of the
    transformer's work for one sampling step of one picture (two forwards under guidance), models in
    turn. Raises BadInput for models of equal names and for no seed.
    """
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names) or not names or not seeds:
        raise BadInput(
            f"models {', '.join(names) or 'none'} with {len(seeds)} seeds",
            "models of different names, a seed at least",
            "rename one",
        )
    out, started = Path(out), time.monotonic()
    settings: dict[str, Any] = {
        "prompts": [item["prompt"] for item in suite.items],
        "seeds": list(seeds),
        "steps": steps,
        "guidance": guidance,
        "size": size,
        "dtype": str(dtype),
        "batch": batch,
        "device": device,
    }
    images: dict[str, list[str]] = {}
    calls: dict[str, dict[str, Any]] = {}
    total = len(pairs) * len(suite.items) * len(seeds)
    for name, path in pairs:
        done = sum(map(len, images.values()))
        images[name] = []
        slug = f"{names.index(name)}-{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:60]}"
        for file, call in _pictures(Path(path), out, slug, settings):
            images[name].append(file)
            calls.setdefault(name, call)
            yield Progress(
                step=done + len(images[name]),
                total=total,
                message=f"{name}: {len(images[name])} pictures",
            )
    yield Progress(step=total, total=total, message="timing")
    times = timed({name: Path(path) for name, path in pairs}, calls, dtype, device)
    items = [{**item, "index": i} for i, item in enumerate(suite.items) for _ in seeds]
    results: list[ModelResult] = []
    for name, path in pairs:
        yield Progress(step=total, total=total, message=f"scoring {name}")
        milliseconds = times[name] * (2 if guidance > 1 else 1)
        scores = _scores(scorers, out, images, name, names[0], items)
        results.append(_result(name, Path(path), milliseconds, scores, results, items, scorers))
    comparison = Comparison(
        suite=suite.name,
        prompts=settings["prompts"],
        seeds=list(seeds),
        steps=steps,
        guidance=guidance,
        size=size,
        models=results,
        images=images,
        seconds=time.monotonic() - started,
    )
    comparison.save(out / "comparison.json")
    write_atomic(out / "index.html", page(comparison, suite))
    yield Progress(step=total, total=total, message="done", result=comparison)


# --- pictures -------------------------------------------------------------------------------------


def _pictures(
    path: Path, out: Path, slug: str, settings: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Write the model's pictures; yields each one's file, relative to `out`, and the transformer's
    arguments for timing.

    Whole batches are kept or sampled again: rounding depends on the batch, and a resumed run shall
    not differ.
    """
    folder = out / "images" / slug
    key = {**settings, "weights": checkpoints.fingerprint(models.transformer_folder(path))}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    held = folder / "settings.json"
    if not held.is_file() or json.loads(read_text(held, "settings")).get("digest") != digest:
        for stale in folder.glob("*.png"):
            stale.unlink()
        write_atomic(held, json.dumps({"digest": digest, **key}) + "\n")
    jobs = [(prompt, seed) for prompt in settings["prompts"] for seed in settings["seeds"]]
    dtype = None if settings["dtype"] == "None" else settings["dtype"].removeprefix("torch.")
    pipe = models.load_pipeline(path, device=settings["device"], dtype=dtype)
    call = first_call(pipe, [jobs[0][0]], settings["size"])
    for start in range(0, len(jobs), settings["batch"]):
        group = jobs[start : start + settings["batch"]]
        files = [folder / f"{start + i:04d}.png" for i in range(len(group))]
        if not all(file.is_file() for file in files):
            made = models.generate(
                pipe,
                [p for p, _ in group],
                seeds=[s for _, s in group],
                steps=settings["steps"],
                guidance=settings["guidance"],
                size=settings["size"],
                batch=settings["batch"],
            )
            for file, image in zip(files, next(made), strict=True):
                _save(image, file)
        for file in files:
            yield str(file.relative_to(out)), call


def _save(image: Image.Image, file: Path) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    image.save(draft, "PNG")
    os.replace(draft, file)


def _load(out: Path, files: Sequence[str]) -> list[Image.Image]:
    return [Image.open(out / file).convert("RGB") for file in files]


# --- figures --------------------------------------------------------------------------------------


@torch.no_grad()
def timed(
    paths: Mapping[str, Path],
    calls: Mapping[str, dict[str, Any]],
    dtype: str | torch.dtype | None,
    device: str,
) -> dict[str, float]:
    """Median milliseconds of one transformer forward, one picture at a time, the models taking
    turns after a warm-up.
    """
    loaded = {
        name: models.load_transformer(path, device=device, dtype=dtype)
        for name, path in paths.items()
    }
    spent: dict[str, list[float]] = {name: [] for name in loaded}
    began = time.monotonic()
    for turn in range(ROUNDS + 2):
        if turn >= 5 and time.monotonic() - began > SECONDS:
            break
        for name, transformer in loaded.items():
            _wait(device)
            start = time.perf_counter()
            transformer(**calls[name])
            _wait(device)
            if turn >= 2:
                spent[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in spent.items()}


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _scores(
    chosen: Mapping[str, AnyScorer],
    out: Path,
    images: Mapping[str, list[str]],
    name: str,
    first: str,
    items: list[dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    if not chosen:
        return {}
    own, reference = _load(out, images[name]), _load(out, images[first])
    return {label: scorers.run(scorer, own, items, reference) for label, scorer in chosen.items()}


def _result(
    name: str,
    path: Path,
    milliseconds: float,
    scores: dict[str, dict[str, Any]],
    before: Sequence[ModelResult],
    items: list[dict[str, Any]],
    chosen: Mapping[str, AnyScorer],
) -> ModelResult:
    """One model's figures; `before` holds the first model's, if this is not it."""
    tensors = checkpoints.headers(models.transformer_folder(path)).values()
    first = before[0].scores if before else scores
    retention, difference = {}, {}
    for label, score in scores.items():
        reference = first[label]
        # likeness to the first model is no share of its quality
        alike = getattr(chosen[label], "pairwise", False)
        retention[label] = (
            score["overall"] / reference["overall"]
            if reference["overall"] > 0 and not alike
            else None
        )
        if before and "per_image" in score and "per_image" in reference:
            difference[label] = paired_difference(score["per_image"], reference["per_image"], items)
    return ModelResult(
        name=name,
        source=str(path),
        parameters=sum(numel(list(t.shape)) for t in tensors),
        bytes=sum(t.bytes for t in tensors),
        ms_per_step=milliseconds,
        scores=scores,
        retention=retention,
        difference=difference,
    )


# --- the page -------------------------------------------------------------------------------------


def page(comparison: Comparison, suite: Suite) -> str:
    """One HTML page without outside requests; pictures by relative path, every text escaped."""
    source = (resources.files("workbench.comparison") / "page.html.jinja").read_text("utf-8")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source)
    count = len(comparison.seeds)
    rows = [
        {
            "prompt": prompt,
            "category": str(item.get("category") or ""),
            "seed": seed,
            "files": [
                (m.name, comparison.images[m.name][i * count + j]) for m in comparison.models
            ],
        }
        for i, (prompt, item) in enumerate(zip(comparison.prompts, suite.items, strict=True))
        for j, seed in enumerate(comparison.seeds)
    ]
    first, figures = comparison.models[0], ("overall", "low", "high", "n")
    categories = {
        label: [
            key
            for key, value in scores.items()
            if isinstance(value, int | float) and key not in figures
        ]
        for label, scores in first.scores.items()
    }
    return template.render(c=comparison, first=first, rows=rows, categories=categories)
