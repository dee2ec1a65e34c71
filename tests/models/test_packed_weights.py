"""A teacher in fewer bits is the teacher whose weights were rounded so, in whatever is done with it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from scipy.stats import norm

from tests.plans.qwen import qwen_block
from tests.sensitivity.test_every_edit import calls_of, edits_of
from tests.tiny import tiny_qwen_pipeline
from tests.tiny_families import family_model
from workbench import models, tasks
from workbench.models.packed_weights import NF4, packable, packed, packed_bytes
from workbench.models.placement import size_in_bits, sizes_of
from workbench.models.streaming import SOURCE
from workbench.records import BadInput, SensitivityMap
from workbench.sensitivity.profiling import profile
from workbench.specs.placements import PLACEMENTS, Sizes
from workbench.specs.teacher_weights import STORED_WEIGHTS

BITS = {name: row.bits for name, row in STORED_WEIGHTS.items()}


def test_the_levels_of_nf4_are_the_quantiles_of_its_paper() -> None:
    outermost = 0.9677083  # of QLoRA's code: half a quantile from the end of 15 and of 16
    positive = norm.ppf(torch.linspace(outermost, 0.5, 9)[:-1])
    negative = -norm.ppf(torch.linspace(outermost, 0.5, 8)[:-1])
    levels = sorted([*positive, 0.0, *negative])
    assert torch.tensor(NF4) == pytest.approx(torch.tensor(levels) / max(levels), abs=1e-6)


@pytest.mark.parametrize("shape", [(8, 64), (5, 13), (1, 1)])
def test_nf4_takes_the_nearest_level(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    back = packed(weight, "nf4").unpacked(torch.float32)
    flat = weight.flatten()
    for start in range(0, len(flat), 64):
        group = flat[start : start + 64]
        levels = torch.tensor(NF4) * group.abs().max()
        nearest = levels[(group[:, None] - levels).abs().argmin(1)]
        assert torch.equal(back.flatten()[start : start + 64], nearest)


def test_int8_is_off_by_half_a_step_at_most_and_zeros_stay() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    back = packed(weight, "int8").unpacked(torch.float32)
    step = weight.abs().amax(1, keepdim=True) / 127
    assert bool(((back - weight).abs() <= step * 0.5001).all())
    assert not back[2].any()


@pytest.mark.parametrize("kind", STORED_WEIGHTS)
def test_the_bytes_by_shape_are_those_that_are_held(kind: str) -> None:
    assert packed(torch.randn(32, 128), kind).nbytes == packed_bytes(32, 128, BITS[kind])


def rounded(model: torch.nn.Module, kind: str) -> torch.nn.Module:
    """The model with the linears of its blocks rounded in place."""
    keep = frozenset(getattr(model, "_keep_in_fp32_modules", None) or ())
    for stack in models.blocks_of(model).values():
        for block in stack:
            weights = dict(block.named_parameters())
            for name in packable(block, keep):
                weight = weights[name]
                weight.data = packed(weight.data, kind).unpacked(weight.dtype)
    return model


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qwenimage", "int8"), ("qwenimage", "nf4"), ("flux", "int8"), ("pixart", "bf16")],
)
def test_every_edit_of_a_packed_teacher_scores_as_of_one_with_rounded_weights(
    name: str, kind: str, tmp_path: Path
) -> None:
    family_model(name).save_pretrained(tmp_path)
    teacher = models.describe(tmp_path, "tiny")
    plain = rounded(models.load_transformer(tmp_path), kind)
    held = models.load_transformer(tmp_path, weights=kind)
    found = []
    for model in (plain, held):
        record: SensitivityMap = list(
            profile(model, teacher, calls_of(name), edits=edits_of(teacher))
        )[-1].result
        found.append({(row.stack, row.block, row.edit): row.score for row in record.rows})
    assert found[0] == found[1] and len(found[0]) > 10


def test_the_expected_size_is_that_of_what_is_held(tmp_path: Path) -> None:
    family_model("qwenimage").save_pretrained(tmp_path)
    expected = sizes_of(tmp_path, "cpu", None, "int8")
    model = models.load_transformer(tmp_path, weights="int8")
    stream = getattr(next(p for p in model.parameters() if hasattr(p, SOURCE)), SOURCE)[0]
    held = sum(each.nbytes for block in stream.packed.values() for each in block.values())
    assert expected.packed == held < expected.transformer / 3


@pytest.mark.parametrize(
    ("kind", "gigabytes"),
    [("as-loaded", 40.9), ("bf16", 42.9), ("int8", 22.5), ("nf4", 13.6)],
)
def test_what_is_counted_for_qwen_image(kind: str, gigabytes: float) -> None:
    """The table of docs/placement.md: 60 blocks in bf16, from the shapes of a block's tensors."""
    shapes = qwen_block().values()
    block = 2 * sum(math.prod(shape) for shape in shapes)
    outside = 2 * (20_430_401_088 - 60 * block // 2)
    sizes = Sizes(outside + 60 * block, outside, block)
    if kind != "as-loaded":
        held = sum(size_in_bits(shape, 2 * math.prod(shape), kind) for shape in shapes)
        sizes = dataclasses.replace(sizes, packed=int(60 * held))
    assert PLACEMENTS["whole"].needs(sizes) / 1e9 == pytest.approx(gigabytes, abs=0.05)


# --- the verb -------------------------------------------------------------------------------------


def test_the_map_says_which_weights_it_was_measured_with(tmp_path: Path) -> None:
    teacher = tiny_qwen_pipeline(tmp_path / "teacher", depth=3)
    (tmp_path / "prompts.txt").write_text("a red circle\n")
    options = {
        "teacher": str(teacher),
        "prompts": str(tmp_path / "prompts.txt"),
        "size": 32,
        "sampling_steps": 2,
        "timesteps": 2,
    }
    found = {}
    for kind in ("as-loaded", "int8"):
        given = options | {"teacher_weights": kind}
        result = tasks.run("profile", given, tmp_path / "workspace")
        found[kind] = SensitivityMap.load(result["map"])
        assert found[kind].measured["teacher_weights"] == kind
    for one, other in zip(found["as-loaded"].rows, found["int8"].rows, strict=True):
        assert one.score != other.score
        assert one.score == pytest.approx(other.score, rel=0.2)
    assert len(list((tmp_path / "workspace" / "sensitivity").glob("*.json"))) == 2


@pytest.mark.parametrize(
    "more",
    [{"placement": "streamed"}, {"metric": "taylor"}, {"metric": "modulation"}],
    ids=str,
)
def test_packed_weights_are_refused_where_nothing_can_be_done_with_them(
    more: dict[str, str], tmp_path: Path
) -> None:
    given = {"teacher": "demo-12", "teacher_weights": "nf4", **more}
    with pytest.raises(BadInput) as refused:
        tasks.run("profile", given, tmp_path / "workspace")
    assert "--teacher-weights nf4" in refused.value.found
    assert not list((tmp_path / "workspace").glob("jobs/*"))
