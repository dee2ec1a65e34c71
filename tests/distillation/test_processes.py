"""Several processes train as one would: the same losses, whole or split between them, and
checkpoints that any number can take up.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from workbench.distillation.processes import ALONE, joined

from . import processes as child


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    child.source(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tests.distillation.processes", str(folder)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), "2", address],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for rank in (0, 1)
    ]
    for rank in ranks:
        # a busy machine lets two that wait for each other crawl
        output, _ = rank.communicate(timeout=600)
        assert rank.returncode == 0, output.decode()[-3000:]
    return folder


@pytest.fixture(scope="module")
def two(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out.json").read_text())


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, list[float]]:
    return {
        "": child.losses(folder, child.SPEC, ALONE)[0],
        " muon": child.losses(folder, child.MUON, ALONE)[0],
    }


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_two_processes_have_the_losses_of_one(
    two: dict[str, Any], alone: dict[str, list[float]], kind: str
):
    assert two[kind] == pytest.approx(alone[""], rel=1e-4)
    assert two[f"{kind} muon"] == pytest.approx(alone[" muon"], rel=2e-2), (
        "bfloat16 rounds each process's part apart"
    )


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_low_rank_modulation_trains_in_two_processes_as_in_one(
    two: dict[str, Any], folder: Path, kind: str
):
    expected, _ = child.losses(folder, child.SPEC, ALONE, child.FACTORED)
    assert two[f"{kind} factored"] == pytest.approx(expected, rel=1e-4)
    resumed = two["split factored resumed"]
    assert resumed == two["split factored"][-len(resumed) :], "a resumed run continues bit for bit"
    for factor in ("down", "up"):
        assert 2 * two[f"{factor} here"] == two[factor], "each process holds half of a factor"


def test_a_loss_that_is_no_number_is_told_alike_by_one_and_by_two(
    two: dict[str, Any], folder: Path, tmp_path: Path
):
    """Also where another process's part of an earlier micro-batch is at fault; and the others stop
    with the same words.
    """
    (tmp_path / "samples.safetensors").symlink_to(folder / "samples.safetensors")
    said = child.refusal(tmp_path, "alone", ALONE)
    assert "'full': loss nan at step 2, first in block 0 of transformer_blocks" in said
    assert said.endswith("last good checkpoint: /step-00000001")
    assert (
        [two["whole refused"], two["split refused"]]
        == [said, said]
        == json.loads((folder / "refused-1.json").read_text())
    )


def test_split_blocks_that_are_run_again_have_the_losses_of_whole_ones(
    two: dict[str, Any], folder: Path
):
    assert two["split checkpointing"] == pytest.approx(
        child.losses(folder, child.SHORT, ALONE)[0], rel=1e-4
    )


def test_two_processes_fit_what_one_fits(two: dict[str, Any], folder: Path):
    alone, _ = child.losses(folder, child.FITTED, ALONE)
    unfitted, _ = child.losses(folder, child.SHORT, ALONE)
    assert two["whole fitted"] == pytest.approx(alone, rel=1e-4)
    assert alone[0] != pytest.approx(unfitted[0], rel=1e-2)


def test_split_blocks_lie_half_in_each(two: dict[str, Any]):
    assert two["numbers here"] * 2 == two["numbers"]


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_a_resumed_run_of_two_goes_on_bit_for_bit(two: dict[str, Any], kind: str):
    assert two[f"{kind} resumed"] == two[kind][child.AFTER :]


@pytest.mark.parametrize("kind", ["whole", "split"])
def test_one_process_takes_up_what_two_left(two: dict[str, Any], folder: Path, kind: str):
    left = folder / f"{kind} left"
    [checkpoint] = left.glob("step-*")
    # whole tensors, under the usual names
    assert {t.shape for t in load_file(checkpoint / "student.safetensors").values()}
    losses, _ = child.losses(folder, child.SPEC, ALONE, checkpoint_folder=left, resume=True)
    assert losses == pytest.approx(two[kind][child.AFTER :], rel=1e-4)


def test_meeting_others_leaves_the_rest_of_the_environment_alone(monkeypatch: pytest.MonkeyPatch):
    """Variables that are set meanwhile stay; those that `joined` sets are as they were before."""
    monkeypatch.setenv("MASTER_ADDR", "elsewhere")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("SET_MEANWHILE", raising=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with joined(0, 1, f"127.0.0.1:{port}", "cpu"):
        assert os.environ["MASTER_ADDR"] == "127.0.0.1"
        os.environ["SET_MEANWHILE"] = "1"
    assert os.environ.pop("SET_MEANWHILE") == "1"
    assert os.environ["MASTER_ADDR"] == "elsewhere" and "RANK" not in os.environ
