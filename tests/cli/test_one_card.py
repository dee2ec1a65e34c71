"""The recipe for one card on a bundled teacher, from the plan to a trained student."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from workbench.records import Card, Plan

from .conftest import Run, only_json

PATH = "transformer_blocks"


@pytest.fixture(scope="module")
def student(command: Run, home: Path) -> Path:
    only_json(command("plan", "demo-12", "--recipe", "one-card", "-o", home / "p.yaml", "--json"))
    only_json(command("build", home / "p.yaml", "-o", home / "built", "--json"))
    return home / "built"


@pytest.mark.parametrize("how", [("--teacher-weights", "nf4"), ("--placement", "streamed")])
def test_one_card_trains_what_stands_for_several_blocks(
    command: Run, home: Path, student: Path, how: tuple[str, str]
):
    out = home / how[1]
    options = ("--steps", 2, "--scenes", 20, "--watch", 0, *how)
    result = only_json(
        command("distill", student, "--recipe", "one-card", *options, "-o", out, "--json")
    )
    spans = Plan.load(home / "p.yaml").stacks[PATH]
    merged = [number for number, span in enumerate(spans) if len(span) > 1]
    assert len(spans) == 6 and merged
    assert result["steps"] == 2 * -(-len(merged) // 2), "of every pair of blocks"
    before, after = weights(student), weights(out)
    for number in range(len(spans)):
        changed = before[number] != after[number]
        assert changed == (number in merged), number
    assert Card.load(out / "card.json").metrics["distill"]["teacher_weights"] in (
        how[1],
        "as-loaded",
    )


def weights(folder: Path) -> dict[int, bytes]:
    """The bytes of each block's output linear."""

    [file] = (folder / "transformer").glob("*.safetensors")
    tensors = load_file(file)
    found = {}
    for name, value in tensors.items():
        if name.endswith("img_mlp.net.2.weight"):
            found[int(name.split(".")[1])] = value.float().numpy().tobytes()
    return found
