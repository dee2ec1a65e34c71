from __future__ import annotations

import pytest
import torch
from torch import nn

from workbench.training.optim import Average, Muon, Optimizers, as_matrices, block_scale, lr_share


def matrices(seed: int = 0) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=g))
        for shape in ((8, 8), (8, 8), (8, 32), (32, 8))
    ]


def test_muon_takes_the_steps_of_torchs_muon():
    ours, theirs = matrices(), matrices()
    one = Muon(ours, lr=0.02, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for a, b, g in zip(ours, theirs, matrices(step + 1), strict=True):
            a.grad, b.grad = g.detach().clone(), g.detach().clone()
        one.step()
        other.step()
    assert all(torch.allclose(a, b, atol=2e-3) for a, b in zip(ours, theirs, strict=True))


def test_adaln_linears_are_six_matrices():
    weight = torch.randn(48, 8)
    assert as_matrices(weight).shape == (6, 8, 8) and torch.equal(
        as_matrices(weight)[1], weight[8:16]
    )


def test_parameters_without_a_gradient_stay():
    named = {
        "blocks.0.w": nn.Parameter(torch.ones(4, 4)),
        "blocks.0.b": nn.Parameter(torch.ones(4)),
        "out": nn.Parameter(torch.ones(4, 4)),
    }
    optimizers = Optimizers(named.items(), "muon", 0.1, 0.5, hidden=["blocks."])
    named["out"].grad = torch.ones(4, 4)
    optimizers.step(1.0)
    assert [bool((p == 1).all()) for p in named.values()] == [True, True, False]
    assert [type(o).__name__ for o in optimizers.all] == ["Muon", "AdamW"] and len(
        optimizers.all[1].param_groups[0]["params"]
    ) == 2


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_scale_shortens_the_step(kind: str):
    moved = []
    for factor in (1.0, 0.25):
        p = nn.Parameter(torch.eye(4))
        p.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
        Optimizers([("b.0.w", p)], kind, 0.1, 0.0, {"b.0.w": factor}, ["b."]).step(1.0)  # type: ignore[arg-type]
        moved.append(float((p.detach() - torch.eye(4)).norm()))
    assert moved[1] == pytest.approx(0.25 * moved[0], rel=1e-4)


def test_schedules():
    assert [lr_share(s, 10, 3, "constant") for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert lr_share(3, 11, 3, "linear") == 1.0 and lr_share(7, 11, 3, "linear") == 0.5
    assert lr_share(7, 11, 3, "cosine") == pytest.approx(0.5)


def test_the_average_follows_and_swaps():
    p = nn.Parameter(torch.zeros(3))
    average = Average([("p", p)], 0.5)
    for _ in range(8):
        p.data += 1
        average.update()
    lagging = average.values["p"].clone()
    with average.applied():
        assert torch.equal(p, lagging) and float(p.detach()[0]) < 8
    assert float(p.detach()[0]) == 8.0


def test_the_more_sensitive_moves_less():
    scores = {"a.": 1.0, "b.": 2.0, "c.": 8.0, "d.": 16.0}
    assert block_scale(scores, "inverse-sensitivity", ["d."]) == {
        "a.": 1.0,
        "b.": 1.0,
        "c.": 0.25,
        "d.": 1.0,
    }
    assert block_scale(scores, "binary") == {"a.": 1.0, "b.": 1.0, "c.": 0.0, "d.": 0.0}
