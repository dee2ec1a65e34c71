"""The student's folder: what `build` wrote, with trained weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..models import checkpoints, transformer_folder
from ..records import Card, DistillSpec


def write_student(
    student: nn.Module,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    out: Path,
    base: Path | str | None,
    spec: DistillSpec,
    metrics: Mapping[str, Any],
) -> None:
    """Write the trained student, whose weights are `state`: `base` with new weights, in a hidden
    folder that then is called `out`.

    Every other file of `base` is hard-linked, or copied across disks. Dtypes are those of `base`.
    card.json gains the spec and the metrics; without `base` only the transformer is saved.
    """
    work = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    if base is None:
        student.save_config(work / "transformer")  # type: ignore[operator]
        saved = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in state.items()}
        save_file(saved, work / "transformer" / f"{checkpoints.STEM}.safetensors", {"format": "pt"})
    else:
        write_weights(state, Path(base), work)
        if (Path(base) / "card.json").is_file():
            card = Card.load(Path(base) / "card.json")
            figures = {k: v for k, v in metrics.items() if k not in ("student", "recoverability")}
            kept = {
                **card.metrics,
                "distill": figures,
                "recoverability": metrics.get("recoverability", []),
            }
            card.model_copy(update={"spec": spec.model_dump(mode="json"), "metrics": kept}).save(
                work / "card.json"
            )
    spec.save(work / "distill.yaml")
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        os.rename(out, old)
    os.rename(work, out)
    shutil.rmtree(old, ignore_errors=True)


def write_weights(state: Mapping[str, torch.Tensor], base: Path, work: Path) -> None:
    """The files of `base` under `work`, with the weights of `state`, in the dtypes of the old;
    without card.json and distill.yaml.
    """
    weights = transformer_folder(base)
    for file in base.rglob("*"):
        replaced = file.parent == weights and ".safetensors" in file.name
        if file.is_file() and not replaced and file.name not in ("card.json", "distill.yaml"):
            target = work / file.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.resolve(), target)
            except OSError:
                shutil.copy2(file, target)
    layout = {
        name: (info.torch_dtype, tuple(info.shape))
        for name, info in checkpoints.headers(weights).items()
    }
    with checkpoints.Writer(work / weights.relative_to(base), layout) as writer:
        for name in writer.order:
            writer.write(name, state[name].to("cpu", layout[name][0]))
