"""Put a trained pair of teachers where the package looks for them: `python -m
workbench.demo.training.bundle --run DIR`.

Writes bfloat16 files: a pipeline folder with the grown transformer, and its parent beside it in
transformer-12/. Before there is a grown run, the parent is grown on the spot.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel

from ...records import jsonfile
from .. import weights_folder
from .grow import grow
from .models import Model

MOST_BYTES, MOST_FILE = 60_000_000, 50_000_000


def forget_paths(folder: Path) -> None:
    """Take out of the configs where the parts were loaded from: it means nothing elsewhere."""
    for path in folder.rglob("*.json"):
        config = jsonfile.parse(path.read_text())
        if isinstance(config, dict) and config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def bundle(run: Path, target: Path) -> int:
    """Write the bundle for a run's folder, replacing the old one only when the new is complete;
    returns its bytes.
    """
    base: Model = QwenImagePipeline.from_pretrained(run / "base" / "pipeline", dtype=torch.bfloat16)
    grown = run / "grow" / "pipeline" / "transformer"
    if grown.exists():
        deep: Model = QwenImageTransformer2DModel.from_pretrained(grown, dtype=torch.bfloat16)
    else:
        deep = grow(base.transformer).to(torch.bfloat16)
    draft = target.with_name(target.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    base.transformer.save_pretrained(draft / "transformer-12")
    base.transformer = deep
    base.save_pretrained(draft)
    forget_paths(draft)
    sizes = [p.stat().st_size for p in draft.rglob("*") if p.is_file()]
    if max(sizes) > MOST_FILE or sum(sizes) > MOST_BYTES:
        raise ValueError(f"the bundle is too large: {sum(sizes)} bytes, largest file {max(sizes)}")
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return sum(sizes)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m workbench.demo.training.bundle", description=__doc__
    )
    p.add_argument("--run", type=Path, required=True, help="the folder given to train as --out")
    p.add_argument("--target", type=Path, default=weights_folder())
    args = p.parse_args(arguments)
    print(f"{bundle(args.run, args.target) / 1e6:.1f} MB in {args.target}")


if __name__ == "__main__":
    main()
