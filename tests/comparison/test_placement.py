"""A comparison does not depend on how its models are held, and holds one at a time."""

from __future__ import annotations

import gc
from pathlib import Path

from diffusers import QwenImageTransformer2DModel

from tests.comparison.test_compare import SETTINGS, SUITE, folders
from workbench.comparison.holding import Holding
from workbench.comparison.run import Entry, compare
from workbench.records import Comparison
from workbench.specs.placements import PLACEMENTS

__all__ = ["folders"]


def entries_of(folders: list[Path]) -> list[Entry]:
    return [Entry("teacher", folders[0]), Entry("student", folders[1])]


def transformers_in_memory() -> int:
    gc.collect()
    return sum(type(each) is QwenImageTransformer2DModel for each in gc.get_objects())


def run(placement: str, folders: list[Path], folder: Path) -> Comparison:
    """A comparison whose second model is sampled when the first one is gone."""
    before = transformers_in_memory()
    held = Holding(PLACEMENTS[placement], together=False, cache=folder / "cache")
    for progress in compare(entries_of(folders), SUITE, {}, SETTINGS, folder / placement, held):
        if progress.message == "student: 1 pictures":
            assert transformers_in_memory() == before + 1
    assert isinstance(progress.result, Comparison)
    return progress.result


def test_pictures_and_gaps_do_not_depend_on_the_placement_and_one_model_is_held(
    folders: list[Path], tmp_path: Path
) -> None:
    whole = run("whole", folders, tmp_path)
    for placement in ("text-first", "streamed"):
        found = run(placement, folders, tmp_path)
        assert found.placement == placement and found.images.keys() == whole.images.keys()
        for name in whole.images:
            for one, two in zip(found.images[name], whole.images[name], strict=True):
                own, other = tmp_path / placement / one, tmp_path / "whole" / two
                assert own.read_bytes() == other.read_bytes()
        for model, other_model in zip(found.models, whole.models, strict=True):
            assert model.guidance_gap == other_model.guidance_gap
            assert model.ms_per_step > 0
