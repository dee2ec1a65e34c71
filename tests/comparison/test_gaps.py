"""The guidance gap of models in a comparison, against sampling and predicting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import tiny, tiny_pipelines
from workbench import models
from workbench.comparison.gaps import TIMESTEPS, Gaps
from workbench.comparison.pictures import Settings
from workbench.models.sampling import BRANCHES, half_of

PROMPTS = ["a red circle", "a blue square above a green star", "two cats"]
TWO_BRANCHES = ("qwenimage", "sd3", "pixart", "zimage")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pipes")
    names = (*TWO_BRANCHES, "flux")
    return {name: tiny_pipelines.tiny_pipeline(name, root / name) for name in names}


def settings(guidance: float = 3.0) -> Settings:
    return Settings(seeds=(0,), steps=TIMESTEPS, guidance=guidance, size=tiny.SIZE, batch=2)


def changed(pipe: models.Pipeline) -> models.Pipeline:
    """Another model: all that comes out of the transformer is a little different."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in pipe.transformer.parameters():
            p.mul_(1 + 0.1 * torch.randn_like(p))
    return pipe


def forwards(pipe: models.Pipeline) -> list[dict]:
    """Every input of the transformer while the pipeline samples the prompts, two at a time."""
    calls: list[dict] = []
    names = list(models.sampling.inspect.signature(pipe.transformer.forward).parameters)

    def note(module, args, kwargs):
        calls.append(models.sampling.detached({**dict(zip(names, args, strict=False)), **kwargs}))

    handle = pipe.transformer.register_forward_pre_hook(note, with_kwargs=True)
    seeds = range(len(PROMPTS))
    how = {"steps": TIMESTEPS, "guidance": 3.0, "size": tiny.SIZE, "batch": 2}
    list(models.generate(pipe, PROMPTS, seeds=seeds, **how))
    handle.remove()
    return calls


@torch.no_grad()
def gaps_by_hand(family: str, transformer: torch.nn.Module, calls: list[dict]) -> np.ndarray:
    """(samples, numbers): c - u of each prompt and step, of all calls in their order."""
    halves = models.family_of(transformer).batched
    rows = []
    sizes = [2] * TIMESTEPS + [1] * TIMESTEPS
    for number, size in enumerate(sizes):
        if halves:
            pair = [half_of(calls[number], halves.index(branch), size) for branch in BRANCHES]
        else:
            pair = calls[2 * number : 2 * number + 2]
        c, u = (models.prediction(transformer(**call), transformer) for call in pair)
        rows.append((c - u).double().flatten(1).numpy())
    return np.concatenate(rows)


@pytest.mark.parametrize("family", TWO_BRANCHES)
def test_the_gap_is_that_of_numpy_whichever_way_the_pipeline_runs_its_branches(
    family: str, folders: dict[str, Path]
):
    pipe = models.load_pipeline(folders[family])
    calls = forwards(pipe)
    teacher = gaps_by_hand(family, pipe.transformer, calls)
    measure = Gaps(PROMPTS, settings())
    first = measure.measure(pipe)
    assert first is not None and first.ratio == 1 and first.cosine == pytest.approx(1)
    other = changed(models.load_pipeline(folders[family]))
    own = gaps_by_hand(family, other.transformer, calls)
    gap = measure.measure(other)
    assert gap is not None
    norms = [np.linalg.norm(rows, axis=1) for rows in (own, teacher)]
    assert gap.ratio == pytest.approx(norms[0].mean() / norms[1].mean(), rel=1e-4)
    cosines = (own * teacher).sum(1) / norms[0] / norms[1]
    assert gap.cosine == pytest.approx(cosines.mean(), rel=1e-4)
    assert gap.ratio != pytest.approx(1, abs=1e-3)


def test_there_is_no_gap_without_a_second_branch(folders: dict[str, Path]):
    for family, guidance in (("flux", 3.5), ("qwenimage", 1.0)):
        pipe = models.load_pipeline(folders[family])
        assert Gaps(PROMPTS, settings(guidance)).measure(pipe) is None


def test_at_most_eight_prompts_are_sampled_evenly_from_the_suite():
    assert len(Gaps([str(i) for i in range(200)], settings()).prompts) == 8
    assert Gaps([str(i) for i in range(16)], settings()).prompts[-1] == "14"
    assert Gaps(PROMPTS, settings()).prompts == PROMPTS
