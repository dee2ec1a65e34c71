"""ms_per_step counts the forwards that the sampler really makes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny, tiny_pipelines
from workbench import models
from workbench.comparison import timing
from workbench.comparison.pictures import Settings
from workbench.comparison.run import Entry, compare
from workbench.comparison.suite import Suite


def forwards_of_sampling(pipe, settings: Settings, prompt: str) -> float:
    """Samples that go through the transformer, for one step of one picture: counted while the
    pipeline samples.
    """
    samples = 0

    def count(module, args, kwargs):
        nonlocal samples
        samples += len(kwargs.get("hidden_states", args[0] if args else ()))

    handle = pipe.transformer.register_forward_pre_hook(count, with_kwargs=True)
    list(
        models.generate(
            pipe,
            [prompt],
            seeds=[0],
            steps=settings.steps,
            guidance=settings.guidance,
            size=settings.size,
        )
    )
    handle.remove()
    return samples / settings.steps


@pytest.mark.parametrize("family", ["flux", "qwenimage", "pixart"])
@pytest.mark.parametrize("guidance", [1.0, 3.5])
def test_a_step_takes_as_many_forwards_as_the_sampler_makes(
    family: str, guidance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch.set_num_threads(1)
    folder = tiny_pipelines.tiny_pipeline(family, tmp_path / family)
    settings = Settings(seeds=(0,), steps=3, guidance=guidance, size=tiny.SIZE)
    pipe = models.load_pipeline(folder)
    expected = forwards_of_sampling(pipe, settings, "a red circle")

    clock = 0.0  # a second for each picture that goes through a transformer

    def tick(module, args, kwargs):
        nonlocal clock
        clock += len(kwargs.get("hidden_states", args[0] if args else ()))

    load = models.load_transformer

    def load_counted(*args, **kwargs):
        transformer = load(*args, **kwargs)
        transformer.register_forward_pre_hook(tick, with_kwargs=True)
        return transformer

    monkeypatch.setattr(models, "load_transformer", load_counted)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock)
    suite = Suite("one", [{"prompt": "a red circle"}])
    [*_, last] = compare([Entry("a", folder)], suite, {}, settings, tmp_path / "out")
    assert last.result.models[0].ms_per_step == pytest.approx(1000 * expected)
