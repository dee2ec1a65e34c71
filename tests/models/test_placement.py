"""How a model is held does not change what it computes, and is chosen by what fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny import SIZE
from tests.tiny_pipelines import tiny_pipeline
from workbench import models
from workbench.models import placement
from workbench.models.free_memory import cgroup_folders, left_of_limit
from workbench.models.placement import choose, load_placed, sizes_of
from workbench.models.prompt_encodings import Prompts, text_encoders
from workbench.records import numel
from workbench.specs.placements import PLACEMENTS, Sizes

ASKED = Prompts(["a red circle", "two blue square left"], [3, 4], 2, 3.0, SIZE, batch=1)


def pictures(pipe: models.Pipeline) -> np.ndarray:
    batches = list(models.generate(pipe, **vars(ASKED)))
    return np.stack([np.asarray(image) for batch in batches for image in batch])


# flux: two text encoders; pixart: a buffer in float32; dit: no text encoder
@pytest.mark.parametrize("name", ["qwenimage", "flux", "pixart", "dit"])
@pytest.mark.parametrize("how", ["text-first", "streamed"])
def test_pictures_are_those_of_a_model_that_is_held_whole(
    name: str, how: str, tmp_path: Path
) -> None:
    folder = tiny_pipeline(name, tmp_path / name)
    asked = ASKED
    if name == "dit":
        asked = Prompts(["0", "1"], [3, 4], 2, 3.0, SIZE, batch=1)
    whole = load_placed(folder, PLACEMENTS["whole"], dtype="bf16")
    cache = tmp_path / "cache"
    placed = load_placed(folder, PLACEMENTS[how], dtype="bf16", cache=cache, ahead=[asked])
    own, other = [list(models.trajectories(pipe, **vars(asked))) for pipe in (whole, placed)]
    assert len(own) == len(other) > 0
    for one, two in zip(own, other, strict=True):
        assert same(one.kwargs, two.kwargs) and one.timestep == two.timestep
    if name == "dit":
        return
    assert all(getattr(placed, part) is None for part in text_encoders(placed))
    assert placed.workbench_encodings.encoded > 0
    again = load_placed(folder, PLACEMENTS[how], dtype="bf16", cache=cache, ahead=[asked])
    assert again.workbench_encodings.encoded == 0  # all of it was on the disk


def same(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        assert isinstance(two, torch.Tensor)
        return one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return all(same(one[key], two[key]) for key in one)  # type: ignore[index]
    if isinstance(one, list | tuple):
        return all(same(a, b) for a, b in zip(one, two, strict=True))  # type: ignore[call-overload]
    return one == two


def test_a_prompt_that_was_not_announced_loads_the_text_encoder_again(folder: Path) -> None:
    placed = load_placed(folder, PLACEMENTS["streamed"], ahead=[])
    assert placed.text_encoder is None
    assert np.array_equal(pictures(placed), pictures(models.load_pipeline(folder)))
    assert placed.text_encoder is not None
    placement.free_text_encoders(placed)
    assert placed.text_encoder is None


# --- sizes and the choice -------------------------------------------------------------------------


def test_sizes_by_headers_are_those_of_the_loaded_model(folder: Path) -> None:
    sizes = sizes_of(folder, "cpu", "bf16")
    pipe = models.load_pipeline(folder, dtype="bf16")
    assert sizes.transformer == size_of(pipe.transformer)
    assert sizes.largest_block == size_of(pipe.transformer.transformer_blocks[0])
    assert sizes.outside == sizes.transformer - 6 * sizes.largest_block
    assert sizes.text_encoders == size_of(pipe.text_encoder)
    assert sizes.others == size_of(pipe.vae)


def size_of(module: torch.nn.Module) -> int:
    return sum(2 * numel(list(p.shape)) for p in module.parameters())


def test_each_placement_needs_less_than_the_one_before() -> None:
    sizes = Sizes(transformer=100, outside=4, largest_block=2, text_encoders=40, others=1)
    assert [row.needs(sizes) for row in PLACEMENTS.values()] == [141, 101, 41]


@pytest.mark.parametrize(
    ("free", "name"), [(1.0, "whole"), (0.99, "text-first"), (0.0, "streamed")]
)
def test_the_first_placement_that_fits_is_chosen(
    free: float, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sizes_of(folder, "cpu", None)
    enough = PLACEMENTS["whole"].needs(sizes) / placement.USABLE
    monkeypatch.setattr(placement, "free_memory", lambda device: int(free * enough) + int(free))
    held = choose("auto", [folder], device="cpu")
    assert held.placement.name == name and name in held.in_words
    facts = {"placement": name, "placement_asked": "auto", "teacher_weights": "as-loaded"}
    assert held.facts() == facts
    asked = choose("text-first", [folder], device="cpu")
    assert asked.placement.name == "text-first" and "as asked" in asked.in_words


def test_without_streaming_the_choice_is_among_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 0)
    assert choose("auto", [folder], device="cpu", streams=False).placement.name == "text-first"


def test_a_cgroup_leaves_its_limit_less_what_is_used_and_cannot_go(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert left_of_limit(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert left_of_limit(tmp_path) is None
    assert left_of_limit(tmp_path / "none") is None


def test_the_folders_of_a_cgroup_lead_up_to_the_root(tmp_path: Path) -> None:
    membership = tmp_path / "cgroup"
    membership.write_text("0::/jobs/one\n")
    names = [folder.name for folder in cgroup_folders(membership)]
    assert names == ["one", "jobs", "cgroup"]
    assert cgroup_folders(tmp_path / "none") == []
