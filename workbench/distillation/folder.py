"""The student's folder: what `build` wrote, with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..models import checkpoints, transformer_folder
from ..models.file_io import draft_folder
from ..records import Card, DistillSpec, link_or_copy


def write_student(
    student: nn.Module,
    state: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
    out: Path,
    base: Path | str | None,
    spec: DistillSpec,
    metrics: Mapping[str, Any],
) -> None:
    """Write the trained student, whose weights are `state`, as the folder `out`.

    It is `base` with new weights: every other file is hard-linked, or copied across disks; dtypes
    are those of `base`; card.json gains the spec and the metrics. Without `base` only the
    transformer is saved, in `dtype`. There is no half-written `out` at any time.
    """
    with draft_folder(out) as draft:
        if base is None:
            write_transformer(student, state, dtype, draft / "transformer")
        else:
            write_weights(state, Path(base), draft)
            if (Path(base) / "card.json").is_file():
                card = Card.load(Path(base) / "card.json")
                trained_card(card, spec, metrics).save(draft / "card.json")
        spec.save(draft / "distill.yaml")


def write_transformer(
    student: nn.Module, state: Mapping[str, torch.Tensor], dtype: torch.dtype, folder: Path
) -> None:
    """The config of the student and its weights, which are `state`, in `dtype`."""
    student.save_config(folder)  # type: ignore[operator]
    whole = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in state.items()}
    save_file(whole, folder / f"{checkpoints.STEM}.safetensors", {"format": "pt"})


def trained_card(card: Card, spec: DistillSpec, metrics: Mapping[str, Any]) -> Card:
    """The card with the spec, and with the run's metrics under `distill` and `recoverability`."""
    figures = {k: v for k, v in metrics.items() if k not in ("student", "recoverability")}
    recovery = metrics.get("recoverability", [])
    all_metrics = {**card.metrics, "distill": figures, "recoverability": recovery}
    changes = {"spec": spec.model_dump(mode="json"), "metrics": all_metrics}
    trained = card.model_copy(update=changes)
    return trained.model_copy(update={"learned_guidance": card.is_guided or trained.is_guided})


def write_weights(state: Mapping[str, torch.Tensor], base: Path, work: Path) -> None:
    """The files of `base` under `work`, with the weights of `state` in the dtypes of the old ones.

    Without card.json and distill.yaml.
    """
    weights = transformer_folder(base)
    for file in base.rglob("*"):
        replaced = file.parent == weights and ".safetensors" in file.name
        if file.is_file() and not replaced and file.name not in ("card.json", "distill.yaml"):
            link_or_copy(file, work / file.relative_to(base))
    layout = {}
    for name, info in checkpoints.headers(weights).items():
        layout[name] = (info.torch_dtype, tuple(info.shape))
    with checkpoints.Writer(work / weights.relative_to(base), layout) as writer:
        for name in writer.order:
            writer.write(name, state[name].to("cpu", layout[name][0]))
