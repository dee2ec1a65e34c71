"""One tiny teacher: its folder, its description, its pipeline and recorded calls of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny import SIZE, tiny_qwen_pipeline
from workbench import models
from workbench.records import Plan, Teacher

# tiny models: a second thread on a busy machine costs ten times what it saves
torch.set_num_threads(1)
STACK = "transformer_blocks"


def plan_of(*spans: dict, teacher: str = "tiny") -> Plan:
    return Plan.parse(
        {"teacher": teacher, "family": "qwenimage", "stacks": {STACK: list(spans)}}, "test"
    )


MIXED = (
    {"blocks": 0},
    {"blocks": [1, 2], "init": "mean", "gain": 2},
    {"blocks": [3, 4], "init": "last"},
    {"blocks": 5, "gain": 1.5},
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_pipeline(tmp_path_factory.mktemp("teacher") / "tiny", depth=6)


@pytest.fixture(scope="session")
def teacher(folder: Path) -> Teacher:
    return models.describe(folder, "tiny")


@pytest.fixture(scope="session")
def pipe(folder: Path) -> models.Pipeline:
    return models.load_pipeline(folder)


@pytest.fixture(scope="session")
def calls(pipe: models.Pipeline) -> list[models.Call]:
    return list(
        models.trajectories(
            pipe,
            ["a red circle", "two blue square", "a green text"],
            seeds=[1, 2, 3],
            steps=4,
            guidance=3,
            size=SIZE,
            timesteps=2,
            batch=2,
        )
    )
