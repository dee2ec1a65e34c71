from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from tests.tiny_families import family_model
from workbench.training.muon import Muon, as_matrices, matrices_of
from workbench.training.optim import Average, Optimizers, block_factors, lr_share


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
    assert as_matrices(weight, 6).shape == (6, 8, 8) and torch.equal(
        as_matrices(weight, 6)[1], weight[8:16]
    )


def test_parameters_without_a_gradient_stay():
    named = {
        "blocks.0.w": nn.Parameter(torch.ones(4, 4)),
        "blocks.0.b": nn.Parameter(torch.ones(4)),
        "out": nn.Parameter(torch.ones(4, 4)),
    }
    optimizers = Optimizers(named.items(), "muon", 0.1, 0.5, matrices={"blocks.0.w": 1})
    named["out"].grad = torch.ones(4, 4)
    optimizers.step()
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
        name = "b.0.w"
        Optimizers(
            [(name, p)],
            kind,
            0.1,
            0.0,
            matrices={name: 1},
            factors={name: factor},  # type: ignore[arg-type]
        ).step()
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
    assert block_factors(scores, "inverse-sensitivity", ["d."]) == {
        "a.": 1.0,
        "b.": 1.0,
        "c.": 0.25,
        "d.": 1.0,
    }
    assert block_factors(scores, "binary") == {"a.": 1.0, "b.": 1.0, "c.": 0.0, "d.": 0.0}


def test_averages_and_schedules_are_those_of_torch():
    """Ten steps against an average and schedules written out by hand."""
    p = nn.Parameter(torch.zeros(3))
    average = Average([("p", p)], 0.5)
    expected = torch.zeros(3)
    for n in range(10):
        p.data += torch.arange(3)
        average.update()
        rate = min(0.5, (1 + n) / (10 + n))
        expected = rate * expected + (1 - rate) * p.detach()
    assert torch.allclose(average.values["p"], expected)
    schedule = partial(lr_share, steps=10, warmup=2, schedule="cosine")
    whole = Optimizers([("p", p)], "adamw", 0.1, 0.0, schedule=schedule)
    rates = []
    for _ in range(6):
        rates.append(whole.lr)
        p.grad = torch.ones(3)
        whole.step()
    assert rates == pytest.approx([0.1 * schedule(step) for step in range(6)])
    resumed = Optimizers([("p", p)], "adamw", 0.1, 0.0, schedule=schedule, at_step=6)
    assert resumed.lr == whole.lr


def test_betas_are_adamws():
    for betas in ((0.9, 0.999), (0.8, 0.95)):
        p = nn.Parameter(torch.ones(3))
        adamw = Optimizers([("p", p)], "adamw", 0.1, 0.0, betas=betas).all[0]
        assert adamw.param_groups[0]["betas"] == betas


@pytest.mark.parametrize(
    ("family", "counts"),
    [
        ("qwenimage", {"img_mod.1.weight": 6, "txt_mod.1.weight": 6, "attn.to_q.weight": 1}),
        ("flux", {"norm.linear.weight": 3}),
        ("sd3", {"norm1.linear.weight": {6, 9}}),
        ("zimage", {"adaLN_modulation.0.weight": 4}),
    ],
)
def test_which_linears_are_several_matrices_is_the_familys_to_say(
    family: str, counts: dict[str, object]
):
    model = family_model(family)
    for name, count in counts.items():
        found = {c for full, c in matrices_of(model).items() if full.endswith("." + name)}
        assert found == (count if isinstance(count, set) else {count})


def test_muon_takes_fused_linears_chunk_by_chunk():
    """A fused linear of three matrices steps as three linears do."""
    fused = nn.Parameter(torch.zeros(24, 8))
    parts = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    fused.grad = torch.randn(24, 8, generator=torch.Generator().manual_seed(0))
    for part, gradient in zip(parts, fused.grad.split(8), strict=True):
        part.grad = gradient.clone()
    Optimizers([("w", fused)], "muon", 0.1, 0.0, matrices={"w": 3}).step()
    named = [(str(i), part) for i, part in enumerate(parts)]
    Optimizers(named, "muon", 0.1, 0.0, matrices={name: 1 for name, _ in named}).step()
    assert torch.allclose(fused, torch.cat([part.detach() for part in parts]), atol=1e-6)
