"""Losses and data sources are tables: readable without torch, open to rows from outside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.distill_world import World
from tests.distillation.test_stages import FED, FULL
from workbench.plugins import register, registry, unregister
from workbench.records import BadInput, Loss
from workbench.training.builtin_losses import Predictions, SpanStates, distance, share_of_mean
from workbench.training.data_sources import source_of
from workbench.training.loss_table import LossTerm, check_losses


@pytest.fixture
def own_losses() -> Iterator[None]:
    def cosine(predictions: Predictions, loss: Loss) -> torch.Tensor:
        assert predictions.teacher is not None
        student, teacher = predictions.student.flatten(1), predictions.teacher.flatten(1)
        return share_of_mean(1 - torch.cosine_similarity(student, teacher), predictions.add)

    def image_only(states: SpanStates, loss: Loss) -> torch.Tensor:
        name = "hidden_states"
        return distance(states.student[name], states.teacher[name], loss, add=states.add)

    register("loss", "cosine", LossTerm("1 - cosine", "prediction", cosine, teacher=True))
    register("loss", "image", LossTerm("the image stream alone", "spans", image_only))
    yield
    unregister("loss", "cosine")
    unregister("loss", "image")


@pytest.mark.parametrize("table", ["loss_table", "data_sources"])
def test_the_tables_are_readable_without_torch(table: str):
    code = f"import workbench.training.{table} as t, sys; print('torch' in sys.modules, *t.ROWS)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, *names = out.stdout.split()
    assert heavy == "False" and len(names) >= 3


def test_a_users_own_loss_trains(world: World, own_losses: None):
    stage = FULL.model_copy(update={"losses": {"cosine": Loss(), "image": Loss(weight=0.1)}})
    rows = [progress.metrics for progress in world.run(stage) if progress.metrics]
    for row in rows:
        assert row["loss"] == pytest.approx(row["cosine"] + 0.1 * row["image"])
    assert rows[-1]["cosine"] < 0.9 * rows[0]["cosine"]
    blockwise = FED.model_copy(update={"losses": {"image": Loss()}})
    rows = [progress.metrics for progress in world.run(blockwise) if progress.metrics]
    assert rows[-1]["image"] < rows[0]["image"]


def test_losses_that_cannot_be_are_refused(own_losses: None):
    check_losses(FULL.model_copy(update={"losses": {"cosine": Loss()}}))
    with pytest.raises(BadInput) as unknown:
        check_losses(FULL.model_copy(update={"losses": {"l1": Loss()}}))
    assert "feature" in unknown.value.expected
    with pytest.raises(BadInput) as blockwise:
        check_losses(FED.model_copy(update={"losses": {"cosine": Loss()}}))
    assert "cosine" in blockwise.value.found


def test_data_is_recognised_by_what_it_is(tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("a cat")
    (tmp_path / "a.tar").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "metadata.jsonl").write_text("")
    for data, name in {
        str(tmp_path / "prompts.txt"): "prompts",
        str(tmp_path / "a.tar"): "tar",
        str(tmp_path): "tar",
        str(tmp_path / "pictures"): "images",
        "general": "general",
        "scenes": "scenes",
    }.items():
        assert source_of(data)[0] == name, data
    with pytest.raises(BadInput):
        source_of(str(tmp_path / "nothing"))
    assert set(registry("data_source").names()) >= {"prompts", "images", "tar", "scenes"}
