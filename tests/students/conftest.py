"""One tiny teacher with its hybrid student, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.students.helpers import build
from tests.tiny import tiny_qwen_pipeline
from workbench.records import Plan, Span

STACK = "transformer_blocks"
# A merged block, dual ones, single ones (one of them merged with a gain), one without a part, and
# the unreachable text half gone.
HYBRID = Plan(
    teacher="tiny",
    family="qwenimage",
    stacks={
        STACK: [
            Span(blocks=(0, 0)),
            Span(blocks=(1, 2), init="mean", gain=2, stream="single"),
            Span(blocks=(3, 3), stream="single"),
            Span(blocks=(4, 4), drop=("text.mlp",)),
            Span(blocks=(5, 5), drop=("text.output",)),
        ]
    },
)


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen_pipeline(tmp_path_factory.mktemp("teacher") / "pipe")


@pytest.fixture(scope="session")
def student_folder(teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("student") / "hybrid"
    build(teacher_folder, HYBRID, out)
    return out
