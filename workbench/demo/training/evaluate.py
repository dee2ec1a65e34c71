"""Score a teacher: `python -m workbench.demo.training.evaluate FOLDER --per-category 200 --steps 20
--cfg 3 -o scores.json`.

Pictures come from the stock QwenImagePipeline, in batches; prompts from seeds that training never
sees.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import QwenImagePipeline
from PIL import Image

from ...records import jsonfile
from .. import DEFAULT_CFG, DEFAULT_STEPS, NEGATIVE_PROMPT, SIZE
from ..scenes import CATEGORIES, Scene, caption, prompt_set
from ..scorer import Report, score_images
from .models import Model


def load(folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.bfloat16) -> Model:
    """A pipeline folder, ready to sample."""
    pipeline: Model = QwenImagePipeline.from_pretrained(folder, dtype=dtype)
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.inference_mode()
def generate(
    pipeline: Model,
    scenes: Sequence[Scene],
    steps: int = DEFAULT_STEPS,
    cfg: float = DEFAULT_CFG,
    batch: int = 25,
) -> Iterator[np.ndarray]:
    """Pictures of scenes, uint8 (128, 128, 3), in order. A scene's noise depends on its seed alone,
    not on the batch.
    """
    for start in range(0, len(scenes), batch):
        part = scenes[start : start + batch]
        noise = [
            torch.Generator().manual_seed(s.seed % 2**31 + CATEGORIES.index(s.category))
            for s in part
        ]
        output = pipeline(
            prompt=[caption(s) for s in part],
            negative_prompt=[NEGATIVE_PROMPT] * len(part),
            true_cfg_scale=cfg,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            generator=noise,
            output_type="np",
        )
        yield from (output.images * 255).round().astype(np.uint8)


def evaluate(
    pipeline: Model, scenes: Sequence[Scene], steps: int = DEFAULT_STEPS, cfg: float = DEFAULT_CFG
) -> tuple[Report, list[np.ndarray], float]:
    """Report, pictures, and seconds a picture."""
    start = time.perf_counter()
    images = list(generate(pipeline, scenes, steps, cfg))
    return score_images(images, scenes), images, (time.perf_counter() - start) / len(scenes)


@cache
def _worker_pipeline(folder: str, device: str, dtype: str, threads: int) -> Model:
    torch.set_num_threads(threads)
    return load(folder, device, getattr(torch, dtype))


def _draw_part(
    worker: tuple[str, str, str, int], scenes: list[Scene], steps: int, cfg: float
) -> list[np.ndarray]:
    return list(generate(_worker_pipeline(*worker), scenes, steps, cfg))


def draw(args: argparse.Namespace, scenes: list[Scene], size: int = 50) -> list[np.ndarray]:
    """Pictures of all scenes, in order, drawn by several processes that share the cores, `size`
    scenes at a time.
    """
    worker = (args.folder, args.device, args.dtype, max(1, (os.cpu_count() or 1) // args.processes))
    parts = [scenes[i : i + size] for i in range(0, len(scenes), size)]
    images: list[np.ndarray] = []
    with ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn")) as pool:
        running = [pool.submit(_draw_part, worker, part, args.steps, args.cfg) for part in parts]
        for part_running in running:
            images += part_running.result()
    return images


def failures(report: Report) -> dict[str, int]:
    """How often each first problem occurred."""
    counts: dict[str, int] = {}
    for score in report.scores:
        if score.problems:
            kind = score.problems[0].split(":")[0]
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def sheet(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures as one, row by row."""
    starts = range(0, len(images) - columns + 1, columns)
    return np.concatenate([np.concatenate(images[i : i + columns], 1) for i in starts])


def digits(passes: Sequence[bool]) -> str:
    """A 1 for each pass, a 0 for each fail."""
    return "".join(str(int(passed)) for passed in passes)


def summary(report: Report, seconds: float, args: argparse.Namespace) -> dict[str, Any]:
    """What is written: scores with intervals, and everything needed to get them again."""
    prompts = hashlib.sha256("\n".join(caption(s) for s in report.scenes).encode()).hexdigest()[:16]
    config = jsonfile.read_object(Path(args.folder) / "transformer" / "config.json", "config")
    # for paired comparisons
    passed = {category: digits(passes) for category, passes in report.passed.items()}
    result = {
        "scores": {name: share._asdict() for name, share in report.shares().items()},
        "unit": "share of pictures that pass",
        "higher_is_better": True,
        "failures": failures(report),
    }
    setting = {k: getattr(args, k) for k in ("steps", "cfg", "dtype", "split", "processes")}
    result |= {
        "blocks": config["num_layers"],
        "size": SIZE,
        "cores": os.cpu_count(),
        "seconds_per_picture": round(seconds, 3),
    }
    return result | setting | {"prompts_sha256": prompts, "passed": passed}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m workbench.demo.training.evaluate", description=__doc__
    )
    p.add_argument("folder")
    p.add_argument("--per-category", type=int, default=200)
    p.add_argument("--steps", type=int, default=DEFAULT_STEPS)
    p.add_argument("--cfg", type=float, default=DEFAULT_CFG)
    p.add_argument("--split", choices=("train", "validation", "eval"), default="eval")
    p.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--processes",
        type=int,
        default=1,
        help="share the work; on a CPU one for each core is fastest",
    )
    p.add_argument(
        "--sheet", type=Path, help="also write a PNG with pictures, a row for each category"
    )
    p.add_argument("-o", "--output", type=Path)
    args = p.parse_args(arguments)
    scenes = prompt_set(args.per_category, args.split)
    start = time.perf_counter()
    images = draw(args, scenes)
    seconds = (time.perf_counter() - start) / len(scenes)
    report = score_images(images, scenes)
    result = summary(report, seconds, args)
    print(
        json.dumps({k: round(v["mean"], 3) for k, v in result["scores"].items()}),
        result["failures"],
        file=sys.stderr,
    )
    if args.sheet:
        rows = min(12, args.per_category)
        chosen: list[np.ndarray] = []
        for first in range(0, len(images), args.per_category):
            chosen += images[first : first + rows]
        Image.fromarray(sheet(chosen, rows)).save(args.sheet)
    text = json.dumps(result, indent=2) + "\n"
    if args.output:
        args.output.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
