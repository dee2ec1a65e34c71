"""The relative squared error between two predictions."""

from __future__ import annotations

import torch

from ..records import BadInput


def relative_change(reference: torch.Tensor, changed: torch.Tensor) -> torch.Tensor:
    """||v - v'||^2 / ||v||^2 per sample, in at least float32: (B, ...) -> (B,)."""
    exact = torch.promote_types(reference.dtype, torch.float32)
    v = reference.to(exact).flatten(1)  # (B, N * D)
    other = changed.to(exact).flatten(1)  # (B, N * D)
    return (v - other).square().sum(1) / v.square().sum(1)


def check_finite(prediction: torch.Tensor, what: str, timestep: float) -> None:
    """Raises BadInput where a prediction is not finite; `what` names the edit."""
    if not torch.isfinite(prediction).all():
        raise not_finite(what, timestep)


def check_not_zero(prediction: torch.Tensor, timestep: float) -> None:
    """Raises BadInput where a sample's prediction is zero: no change of it is relative to anything."""
    if not prediction.flatten(1).any(1).all():
        raise BadInput(
            f"the model predicts zero at timestep {timestep:.0f}",
            "a trained model (in a fresh one the output projection is zero)",
            "train it first, or check its proj_out",
        )


def not_finite(what: str, timestep: float) -> BadInput:
    return BadInput(
        f"the prediction is not finite with {what} at timestep {timestep:.0f}",
        "finite numbers",
        "profile in bf16 or float32, or leave this edit out",
    )
