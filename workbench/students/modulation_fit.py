"""Modulation in two factors, from the conditioning vectors that its linears see.

Every AdaLN linear of a model gets the same vector x (d), after its SiLU. Where x depends on the
timestep alone, all x lie on one smooth curve. With their mean m and orthonormal directions V (k, d):

    W x + b  ~=  (W V^T) V x + (b + W m - W V^T V m)  =  up(down(x))

Equal where the vectors span k dimensions around their mean. No table: x is computed as before, and
stays exact in t. V are the first k principal directions of the vectors, so they are the same for
all blocks. FastVideo (pull request 1699) and musubi-tuner (pull request 1046) do so for MiniMax-H3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

ROWS = 1024  # of a weight at once in float64


@dataclass(frozen=True, eq=False)
class Basis:
    """The principal directions of conditioning vectors, in float64.

    vectors: (T, d), as the modulation linears see them.
    weights: (T,), how much each vector counts for the mean and the directions; None: all alike.
    """

    vectors: torch.Tensor
    weights: torch.Tensor | None = None

    @cached_property
    def shares(self) -> torch.Tensor:
        """(T,), the weights with sum 1."""
        if self.weights is None:
            count = len(self.vectors)
            return torch.full((count,), 1 / count, dtype=torch.float64)
        return self.weights.double() / self.weights.double().sum()

    @cached_property
    def mean(self) -> torch.Tensor:
        """(d,)"""
        return self.shares @ self.vectors.double()

    @cached_property
    def _svd(self) -> tuple[torch.Tensor, torch.Tensor]:
        centred = self.vectors.double() - self.mean
        scaled = self.shares.sqrt()[:, None] * centred
        _, values, directions = torch.linalg.svd(scaled, full_matrices=False)
        return values, directions

    @property
    def singular_values(self) -> torch.Tensor:
        """(min(T, d),), falling: how far the vectors spread along each direction, as the root of
        the weighted mean of squares.
        """
        return self._svd[0]

    @property
    def directions(self) -> torch.Tensor:
        """(min(T, d), d), orthonormal rows, the widest spread first."""
        return self._svd[1]

    def residual(self, rank: int) -> float:
        """Share of the vectors' squared spread around their mean that `rank` directions leave out:
        0 to 1, lower = better. It knows no weights; the metric `modulation` does.
        """
        squares = self.singular_values.square()
        total = float(squares.sum())
        return float(squares[rank:].sum()) / total if total else 0.0

    def down(self, rank: int, bias: bool = True) -> torch.Tensor:
        """The first factor (rank, d). Without a bias to hold the mean, the mean's direction is the
        first row and the principal ones, made orthogonal to it, follow.

        More directions than the vectors have are rows of zeros.
        """
        rows = self.directions[:rank]
        if not bias:
            first = self.mean / self.mean.norm()
            rest = rows[: rank - 1]
            rest = rest - (rest @ first)[:, None] * first
            rows = torch.cat([first[None], orthonormal(rest)])
        if len(rows) < rank:
            rows = torch.cat([rows, rows.new_zeros(rank - len(rows), rows.shape[1])])
        return rows.contiguous()

    def left_out(self, vectors: torch.Tensor, rank: int, bias: bool = True) -> torch.Tensor:
        """What `rank` directions leave out of vectors (T, d), in float64: around the mean, or
        without a bias around the origin.
        """
        rows = self.down(rank, bias)
        around = vectors.double()
        if bias:
            around = around - self.mean
        return around - (around @ rows.T) @ rows


def orthonormal(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal rows that span the same space, (k, d)."""
    q, _ = torch.linalg.qr(rows.T)
    return q.T


def factor(
    weight: torch.Tensor, bias: torch.Tensor | None, basis: Basis, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """down (rank, d), up (out, rank) and up's bias (out,) of a linear, in float64.

    weight: (out, d). Equal to the linear on the vectors of the basis, up to what lies outside the
    first `rank` directions around their mean; without a bias, around the origin.
    """
    down = basis.down(rank, bias is not None).to(weight.device)
    up = product(weight, down.T)
    if bias is None:
        return down, up, None
    mean = basis.mean.to(weight.device)
    rest = mean - down.T @ (down @ mean)  # (d,)
    return down, up, bias.double() + product(weight, rest[:, None])[:, 0]


def product(weight: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """weight (out, d) times right (d, n) in float64, some rows at a time."""
    return torch.cat([rows.double() @ right for rows in weight.split(ROWS)])


def multiplied_out(down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """The weight (out, d) of two factors, in float64."""
    return up.double() @ down.double()


def factored_lora(
    lora_a: torch.Tensor, lora_b: torch.Tensor, basis: Basis, rank: int, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A LoRA of a modulation linear, lora_a (r, d) and lora_b (out, r), for its two factors: a pair
    (r, rank) and (out, r) on `up`, and what is added to `up`'s bias (out,), in float64.

    The offset is what the projection leaves of the mean: scale * lora_b @ (lora_a @ (m - V^T V m)).
    Equal to factoring weight + scale * lora_b @ lora_a.
    """
    down = basis.down(rank)
    rest = basis.mean - down.T @ (down @ basis.mean)
    a = lora_a.double()
    b = scale * lora_b.double()
    return a @ down.T, b, b @ (a @ rest)
