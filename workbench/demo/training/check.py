"""How far the scorer can be trusted: `python -m workbench.demo.training.check [--per-category
100]`.

Prints pass rates on true pictures, and on the same pictures after a round trip through the VAE (the
ceiling of any model that uses it); what was read instead of what was drawn; and which templates
look most alike.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage

from .. import weights_folder
from ..render import render
from ..scenes import CATEGORIES, Scene, caption, prompt_set
from ..scorer import Report, score_images, templates
from .models import Model


@torch.inference_mode()
def round_trip(vae: Model, images: list[np.ndarray], batch: int = 20) -> list[np.ndarray]:
    """Pictures uint8 (128, 128, 3) encoded and decoded by a stock VAE, in its precision."""
    result: list[np.ndarray] = []
    for start in range(0, len(images), batch):
        pixels = torch.from_numpy(np.stack(images[start : start + batch]))  # (B, H, W, 3)
        x = pixels.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1  # (B, 3, H, W)
        latents = vae.encode(x[:, :, None]).latent_dist.mean  # (B, z, 1, H / 8, W / 8)
        y = vae.decode(latents, return_dict=False)[0][:, :, 0]
        decoded = ((y.float().clamp(-1, 1) + 1) * 127.5).round().byte()
        result += list(decoded.permute(0, 2, 3, 1).numpy())
    return result


def confusions(report: Report) -> Counter[tuple[str, str]]:
    """(drawn, read) of objects that were read as something else, where their number was right."""
    wrong: Counter[tuple[str, str]] = Counter()
    for score, scene in zip(report.scores, report.scenes, strict=True):
        if len(score.objects) != len(scene.items):
            continue
        items = sorted(scene.items, key=lambda item: item.x)
        for drawn, read in zip(items, score.objects, strict=True):
            if drawn.name != read.name:
                wrong[drawn.name, read.name] += 1
            if drawn.colour != read.colour:
                wrong[drawn.colour, read.colour] += 1
    return wrong


def most_alike(kind: str, n: int = 6) -> list[tuple[str, str, float]]:
    """The pairs of templates with the largest overlap: what the scorer could confuse first."""
    names, outlines, aspects, _ = templates(kind)
    pairs = []
    for i, first in enumerate(names):
        for j, second in enumerate(names[:i]):
            both = np.minimum(outlines[i], outlines[j]).sum()
            either = np.maximum(outlines[i], outlines[j]).sum()
            ratio = min(aspects[i] / aspects[j], aspects[j] / aspects[i])
            pairs.append((first, second, float(both / either * ratio**0.5)))
    return sorted(pairs, key=lambda p: -p[2])[:n]


def show(title: str, report: Report) -> None:
    """Print a report: pass rates, misreadings, and the first failures."""
    shares = report.shares()
    means = " ".join(f"{name} {shares[name].mean:.3f}" for name in ("overall", *CATEGORIES))
    print(title, means, f"(n = {shares['overall'].n})")
    for (drawn, read), n in confusions(report).most_common(10):
        print(f"    {drawn} read as {read}: {n}")
    for score, scene in zip(report.scores, report.scenes, strict=True):
        if not score.ok:
            print(f"    {caption(scene)}: {'; '.join(score.problems)}")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m workbench.demo.training.check", description=__doc__)
    p.add_argument("--per-category", type=int, default=100)
    p.add_argument("--vae", type=Path, default=weights_folder() / "vae")
    args = p.parse_args(arguments)
    scenes: list[Scene] = prompt_set(args.per_category, "eval")
    images = [render(s) for s in scenes]
    show("true pictures:", score_images(images, scenes))
    vae = AutoencoderKLQwenImage.from_pretrained(args.vae)
    again = round_trip(vae, images)
    error = np.mean([(a.astype(float) - b) ** 2 for a, b in zip(images, again, strict=True)])
    show(f"after the VAE ({10 * np.log10(255**2 / error):.1f} dB):", score_images(again, scenes))
    for kind in ("shape", "letter"):
        print(
            f"{kind} templates most alike:",
            ", ".join(f"{a}-{b} {v:.2f}" for a, b, v in most_alike(kind)),
        )


if __name__ == "__main__":
    main()
