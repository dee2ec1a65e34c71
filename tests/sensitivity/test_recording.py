"""The snippet of docs/sensitivity.md records what the workbench's own trajectories hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from tests.tiny import SIZE
from tests.tiny_pipelines import tiny_pipeline
from workbench import models

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sensitivity.md"
PROMPTS = ["a red circle", "two blue square"]


def test_the_snippet_records_a_run(tmp_path: Path, monkeypatch: Any) -> None:
    [code] = re.findall(
        r"```python\n(from workbench import "
        r"models\n.*?)```",
        PAGE.read_text(encoding="utf-8"),
        re.S,
    )
    pipe = models.load_pipeline(tiny_pipeline("flux", tmp_path / "flux"))
    how: dict[str, Any] = {
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": 4,
        "guidance_scale": 3.0,
        "output_type": "latent",
        "generator": [torch.Generator().manual_seed(seed) for seed in (1, 2)],
    }
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace("pipe(prompts, ...)", "pipe(prompts, **how)"),
        {"pipe": pipe, "scheduler": pipe.scheduler, "prompts": PROMPTS, "how": how},
    )
    [call] = models.load_inputs(tmp_path / "inputs.safetensors")
    own = next(
        iter(models.trajectories(pipe, PROMPTS, seeds=[1, 2], steps=4, guidance=3.0, size=SIZE))
    )
    assert (call.timestep, call.samples, call.branch) == (own.timestep, 2, "cond")
    assert call.kwargs.keys() <= own.kwargs.keys() | {"return_dict"}
    assert torch.equal(call.kwargs["hidden_states"], own.kwargs["hidden_states"])
    # Two forwards of one model may differ in the last bits.
    with torch.no_grad():
        torch.testing.assert_close(
            models.prediction(pipe.transformer(**call.kwargs)),
            models.prediction(pipe.transformer(**own.kwargs)),
            rtol=1e-5,
            atol=1e-6,
        )
