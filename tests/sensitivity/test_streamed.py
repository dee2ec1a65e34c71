"""A streamed teacher has the map of one that is held whole, number for number."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.big_model import profile_in_child, write_inputs, write_model
from tests.sensitivity.test_every_edit import calls_of, edits_of
from tests.tiny_families import family_model
from workbench import models
from workbench.families import FAMILIES
from workbench.models.streaming import SOURCE, Stream
from workbench.records import BadInput, SensitivityMap
from workbench.sensitivity.profiling import profile

EVERY_EDIT = ("qwenimage", "flux", "pixart")  # the others have three and a rank


def stream_of(model: torch.nn.Module) -> Stream:
    """The stream of a model's blocks."""
    sources = [getattr(p, SOURCE) for p in model.parameters() if hasattr(p, SOURCE)]
    stream: Stream = sources[0][0]
    return stream


def scores(record: SensitivityMap) -> dict[tuple[str, int, str], float]:
    return {(row.stack, row.block, row.edit): row.score for row in record.rows}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_edits_of_a_streamed_teacher_score_what_they_do_of_a_whole_one(
    name: str, tmp_path: Path
) -> None:
    family_model(name).save_pretrained(tmp_path)
    whole = models.load_transformer(tmp_path)
    streamed = models.load_transformer(tmp_path, streamed=True)
    teacher = models.describe(tmp_path, "tiny")
    edits = edits_of(teacher) if name in EVERY_EDIT else ["drop", "merge", "int4"]
    if FAMILIES[name].conditioning and FAMILIES[name].conditioning.is_curve(teacher.config):
        edits.append("modulation:rank=2")
    records = []
    for model in (whole, streamed):
        run = list(profile(model, teacher, calls_of(name), edits=edits))
        records.append(run[-1].result)
    assert scores(records[0]) == scores(records[1])
    assert records[0].block_evaluations == records[1].block_evaluations
    stream = stream_of(streamed)
    assert 0 < stream.loads < records[1].block_evaluations  # edits share what is read
    assert not +stream.uses
    assert stream.most <= 2  # two, while a merge is made
    assert all(
        p.data_ptr() and p.isnan().all() for p in streamed.parameters() if hasattr(p, SOURCE)
    )


def test_no_gradient_passes_a_streamed_block(tmp_path: Path) -> None:
    family_model("qwenimage").save_pretrained(tmp_path)
    streamed = models.load_transformer(tmp_path, streamed=True)
    teacher = models.describe(tmp_path, "tiny")
    with pytest.raises(BadInput, match="streamed"):
        list(profile(streamed, teacher, calls_of("qwenimage"), metric="taylor"))


def test_sixty_streamed_blocks_are_profiled_in_less_memory_than_their_weights_take(
    tmp_path: Path,
) -> None:
    size = write_model(tmp_path / "model")
    inputs = write_inputs(tmp_path / "calls.safetensors")
    out = tmp_path / "map.json"
    found = profile_in_child(
        tmp_path / "model", inputs, out, metric="influence", placement="streamed"
    )
    assert size > 300e6 and len(found["rows"]) == 60
    assert found["peak"] < size / 3
    assert SensitivityMap.load(out).measured["placement"] == "streamed"
