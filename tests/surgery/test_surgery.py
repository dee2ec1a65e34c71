"""Students in memory and on disk: three ways to the same weights."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, QwenImageTransformer2DModel
from torch import nn

from tests.refusals import refused
from tests.tiny import SIZE, tiny_inputs
from tests.tiny_families import family_model
from tests.tiny_teacher import MIXED, STACK, plan_of
from workbench import models, plans, surgery
from workbench.families import FAMILIES
from workbench.models import Pipeline, block_cache, checkpoints
from workbench.records import Card, Plan, Teacher
from workbench.students import weights_from_span

INPUTS = tiny_inputs()
ROOT = Path(__file__).parents[2]
HYBRID = (
    {"blocks": 0},
    {"blocks": [1, 2], "init": "mean", "gain": 2},
    {"blocks": 3, "drop": ["text.mlp"]},
    {"blocks": 4, "stream": "single"},
    {"blocks": 5, "stream": "single", "drop": ["mlp"]},
)


def answer(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(**INPUTS)[0]  # (B, N, D)


def built(folder: Path, teacher: Teacher, plan: Plan, out: Path, **more: object) -> dict:
    return list(surgery.build(folder, teacher, plan, out, **more))[-1].result


def test_identity_plan_is_the_teacher_bit_for_bit(
    folder: Path, teacher: Teacher, pipe: Pipeline, tmp_path: Path
) -> None:
    plan = plans.identity(teacher)
    result = built(folder, teacher, plan, tmp_path / "student")
    assert models.describe(tmp_path / "student", "x").fingerprint == teacher.fingerprint
    # stock, without the workbench
    student = DiffusionPipeline.from_pretrained(tmp_path / "student")
    assert torch.equal(answer(student.transformer), answer(pipe.transformer))
    with surgery.applied(pipe, plan) as transformer:
        assert list(transformer.transformer_blocks) == list(pipe.transformer.transformer_blocks)
    assert result["stock"] is True and result["parameters"] == teacher.parameters
    assert result["bytes"] > 0 and result["peak_rss_mib"] > 10 and result["seconds"] > 0


def test_three_ways_to_one_student(
    folder: Path, teacher: Teacher, pipe: Pipeline, tmp_path: Path
) -> None:
    plan = plan_of(*MIXED)
    result = built(folder, teacher, plan, tmp_path / "student")
    with surgery.applied(pipe, plan):
        preview = answer(pipe.transformer)
    memory = surgery.student_transformer(pipe.transformer, plan)
    disk = models.load_pipeline(tmp_path / "student").transformer
    assert torch.equal(answer(memory), preview) and torch.equal(answer(disk), preview)
    assert not torch.equal(preview, answer(pipe.transformer))
    assert type(memory) is type(disk) is QwenImageTransformer2DModel
    assert memory.config.num_layers == disk.config.num_layers == 4
    assert (
        sum(p.numel() for p in disk.parameters())
        == result["parameters"]
        == plans.parameters(plan, teacher)
    )
    disk.save_pretrained(tmp_path / "again")
    assert checkpoints.fingerprint(tmp_path / "again") == checkpoints.fingerprint(
        tmp_path / "student" / "transformer"
    )


def test_bf16_teacher_in_three_ways(folder: Path, tmp_path: Path) -> None:
    models.load_transformer(folder, dtype="bf16").save_pretrained(tmp_path / "bf16")
    teacher, plan = models.describe(tmp_path / "bf16", "half"), plan_of(*MIXED)
    built(tmp_path / "bf16", teacher, plan, tmp_path / "student")
    half = models.load_transformer(tmp_path / "bf16", dtype="bf16")
    with surgery.applied(half, plan):
        preview = half.state_dict()
    on_disk = models.load_transformer(tmp_path / "student", dtype="bf16").state_dict()
    assert teacher.dtype == "bfloat16" and preview.keys() == on_disk.keys()
    assert all(torch.equal(preview[name], on_disk[name]) for name in preview)


@pytest.mark.parametrize("spans", [MIXED, HYBRID], ids=["stock", "hybrid"])
def test_applied_restores_exactly(pipe: Pipeline, spans: tuple[dict, ...]) -> None:
    transformer = pipe.transformer
    before, modules, config = (
        answer(transformer),
        list(transformer.named_modules()),
        transformer.config,
    )
    with pytest.raises(ZeroDivisionError), surgery.applied(pipe, plan_of(*spans)):
        assert len(transformer.transformer_blocks) == transformer.config.num_layers == len(spans)
        raise ZeroDivisionError
    assert [(n, id(m)) for n, m in transformer.named_modules()] == [(n, id(m)) for n, m in modules]
    assert (
        transformer.config is config
        and config.num_layers == 6
        and type(transformer) is QwenImageTransformer2DModel
    )
    assert torch.equal(answer(transformer), before)


def test_blocks_are_prepared_step_by_step_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all stacks at once: FLUX has two."""
    model = family_model("flux")
    pairs = [{"blocks": [0, 1], "init": "mean"}, {"blocks": 2, "gain": 2}]
    plan = Plan.parse(
        {
            "teacher": "x",
            "family": "flux",
            "stacks": {row.path: pairs for row in FAMILIES["flux"].stacks},
        },
        "test",
    )
    steps = list(surgery.prepared(model, plan))
    assert [step.step for step in steps] == [0, 1, 2, 3, 4] and steps[-1].total == 4
    monkeypatch.setattr(
        block_cache, "student_block_state", lambda *args: pytest.fail("computed again")
    )
    with surgery.applied(model, plan) as student:
        assert len(student.transformer_blocks) == len(student.single_transformer_blocks) == 2


def test_applied_shares_weights_and_keeps_merged_blocks(pipe: Pipeline) -> None:
    with surgery.applied(pipe, plan_of(*MIXED)) as student:
        blocks = list(student.transformer_blocks)
    own = list(pipe.transformer.transformer_blocks)
    assert (
        blocks[0] is own[0]
        and blocks[2] is own[4]
        and blocks[1] not in own
        and blocks[3] not in own
    )
    with surgery.applied(pipe, plan_of(*MIXED)) as student:
        assert list(student.transformer_blocks) == blocks  # not computed again
    assert next(p for p in blocks[1].parameters()).requires_grad


def test_merged_blocks_follow_training(pipe: Pipeline) -> None:
    model = copy.deepcopy(pipe.transformer)
    plan = plan_of(*MIXED)
    with surgery.applied(model, plan):
        before = answer(model)
    with torch.no_grad():
        model.transformer_blocks[1].img_mlp.net[2].weight.mul_(3)
    with surgery.applied(model, plan):
        assert not torch.equal(answer(model), before)


def test_applied_previews_dropped_parts(pipe: Pipeline) -> None:
    free = plan_of(*({"blocks": b} for b in range(5)), {"blocks": 5, "drop": ["text.output"]})
    with surgery.applied(pipe, free):
        assert torch.equal(
            answer(pipe.transformer),
            answer(
                surgery.student_transformer(
                    pipe.transformer,
                    plans.identity(
                        # unreachable in the last block: nothing changes
                        models.describe_module(pipe.transformer)
                    ),
                )
            ),
        )
    with surgery.applied(
        pipe, plan_of({"blocks": 0, "drop": ["mlp"]}, *({"blocks": b} for b in range(1, 6)))
    ):
        changed = answer(pipe.transformer)
    assert not torch.equal(changed, answer(pipe.transformer))


def test_saying_what_is_so_changes_nothing(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    built(
        folder,
        teacher,
        plan_of(*({"blocks": b, "stream": "dual"} for b in range(6))),
        tmp_path / "student",
    )
    assert models.describe(tmp_path / "student", "x").fingerprint == teacher.fingerprint


def test_a_student_samples_pictures(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    built(folder, teacher, plan_of(*MIXED), tmp_path / "student")
    student = DiffusionPipeline.from_pretrained(tmp_path / "student")
    student.set_progress_bar_config(disable=True)
    image = student(
        "a red circle", height=SIZE, width=SIZE, num_inference_steps=2, true_cfg_scale=1.0
    ).images[0]
    assert image.size == (SIZE, SIZE)


def test_what_lies_in_the_folder(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    out = tmp_path / "student"
    (folder / "LICENSE.md").write_text("as you like")
    steps = list(surgery.build(folder, teacher, plan_of(*MIXED), out))
    (folder / "LICENSE.md").unlink()
    assert steps[-1].step == steps[-1].total and len(steps) > 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student"]
    assert (out / "LICENSE.md").read_text() == "as you like"
    assert os.path.samefile(
        out / "text_encoder" / "model.safetensors", folder / "text_encoder" / "model.safetensors"
    )
    assert not os.path.samefile(out / "model_index.json", folder / "model_index.json")
    assert Plan.load(out / "plan.yaml").stacks == plan_of(*MIXED).stacks
    card = Card.load(out / "card.json")
    assert (card.teacher, card.original, card.teacher_fingerprint) == (
        "tiny",
        "tiny",
        teacher.fingerprint,
    )
    assert (
        card.parameters < card.teacher_parameters == card.original_parameters == teacher.parameters
    )
    names = set(checkpoints.headers(out / "transformer"))
    assert {int(n.split(".")[1]) for n in names if n.startswith(STACK)} == {0, 1, 2, 3}


def test_links_fall_back_to_copies(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    built(folder, teacher, plan_of(*MIXED), tmp_path / "student")
    assert not os.path.samefile(
        tmp_path / "student" / "vae" / "config.json", folder / "vae" / "config.json"
    )
    models.load_pipeline(tmp_path / "student")


def test_shards_and_dtype(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    built(folder, teacher, plan_of(*MIXED), tmp_path / "whole", dtype="bf16")
    built(
        folder, teacher, plan_of(*MIXED), tmp_path / "shards", dtype="bf16", max_shard_size=100_000
    )
    assert len(list((tmp_path / "shards" / "transformer").glob("*.safetensors"))) > 2
    one, two = (
        models.load_transformer(tmp_path / name, dtype="bf16") for name in ("whole", "shards")
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )
    assert models.describe(tmp_path / "whole", "x").dtype == "bfloat16"


def test_slabs_and_whole_tensors_give_the_same_bytes(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(folder, teacher, plan_of(*MIXED), tmp_path / "whole", dtype="fp16")
    monkeypatch.setattr(checkpoints, "CHUNK", 100)
    monkeypatch.setattr(checkpoints, "SLAB", 300)
    monkeypatch.setattr(checkpoints, "SETTLE", 1000)
    built(folder, teacher, plan_of(*MIXED), tmp_path / "slabs", dtype="fp16")
    one, two = (
        tmp_path / name / "transformer" / f"{checkpoints.STEM}.safetensors"
        for name in ("whole", "slabs")
    )
    assert one.read_bytes() == two.read_bytes()


def test_a_hybrid_student_in_three_ways_and_fat(
    folder: Path, teacher: Teacher, pipe: Pipeline, tmp_path: Path
) -> None:
    plan = plan_of(*HYBRID)
    result = built(folder, teacher, plan, tmp_path / "thin")
    fat = built(folder, teacher, plan, tmp_path / "fat", fat=True)
    assert (result["stock"], fat["stock"]) == (False, True)
    assert [Card.load(tmp_path / name / "card.json").stock for name in ("thin", "fat")] == [
        False,
        True,
    ]
    assert result["parameters"] == plans.parameters(plan, teacher) < fat["parameters"]
    with surgery.applied(pipe, plan):
        preview = answer(pipe.transformer)
    loaded = models.load_pipeline(tmp_path / "thin").transformer
    assert torch.equal(answer(loaded), preview)
    stock = DiffusionPipeline.from_pretrained(tmp_path / "fat").transformer  # no code of ours
    assert (
        type(stock) is QwenImageTransformer2DModel
        and sum(p.numel() for p in stock.parameters()) == fat["parameters"]
    )
    assert torch.allclose(answer(stock), preview, rtol=1e-5, atol=1e-5)
    assert not list((tmp_path / "fat").rglob("*.py")) and list(
        (tmp_path / "thin" / "transformer").glob("modeling_*.py")
    )


def test_a_hybrid_student_is_a_teacher_like_any_other(
    folder: Path, teacher: Teacher, tmp_path: Path
) -> None:
    """Amber's second step: single blocks first, then fewer of them. At once or in two steps, the
    weights are the same.
    """
    built(
        folder,
        teacher,
        plan_of(
            *({"blocks": b} for b in range(3)),
            *({"blocks": b, "stream": "single"} for b in (3, 4, 5)),
        ),
        tmp_path / "one",
    )
    parent = models.describe(tmp_path / "one", "one")
    with refused(found="[0-5]: block 3", do="first, last or middle"):
        built(
            tmp_path / "one", parent, plan_of({"blocks": [0, 5], "init": "mean"}), tmp_path / "two"
        )
    second = plan_of(
        {"blocks": 0},
        {"blocks": [1, 2], "init": "mean", "gain": 2},
        {"blocks": [3, 4], "init": "mean"},
        {"blocks": 5},
    )
    result = built(tmp_path / "one", parent, second, tmp_path / "two")
    at_once = plan_of(
        {"blocks": 0},
        {"blocks": [1, 2], "init": "mean", "gain": 2},
        {"blocks": [3, 4], "init": "mean", "stream": "single"},
        {"blocks": 5, "stream": "single"},
    )
    built(folder, teacher, at_once, tmp_path / "direct")
    assert checkpoints.fingerprint(tmp_path / "direct" / "transformer") == checkpoints.fingerprint(
        tmp_path / "two" / "transformer"
    )
    config = models.read_config(tmp_path / "two" / "transformer" / "config.json")
    assert (
        config["single_stream_layers"] == [2, 3]
        and config["num_layers"] == 4
        and result["stock"] is False
    )
    only_dual = built(
        tmp_path / "one",
        parent,
        plan_of({"blocks": 0}, {"blocks": 1}, {"blocks": [2, 5]}),
        tmp_path / "dual",
    )
    assert only_dual["stock"] is True and not list((tmp_path / "dual").rglob("*.py"))
    assert (
        type(DiffusionPipeline.from_pretrained(tmp_path / "dual").transformer)
        is QwenImageTransformer2DModel
    )
    fat = built(tmp_path / "one", parent, second, tmp_path / "fat", fat=True)
    assert fat["stock"] is True and not list((tmp_path / "fat").rglob("*.py"))
    stock, thin = (models.load_pipeline(tmp_path / name).transformer for name in ("fat", "two"))
    assert type(stock) is QwenImageTransformer2DModel and torch.allclose(
        answer(stock), answer(thin), rtol=1e-5, atol=1e-5
    )


def test_a_student_of_a_student(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    """Two steps on disk equal the composed plan on the original, and the card tells the whole
    chain.
    """
    built(
        folder,
        teacher,
        plan_of(
            {"blocks": 0},
            {"blocks": 1},
            {"blocks": [2, 3]},
            {"blocks": 4, "gain": 2},
            {"blocks": 5},
        ),
        tmp_path / "one",
    )
    parent = models.describe(tmp_path / "one", "one")
    second = plan_of(
        {"blocks": [0, 1], "init": "mean", "gain": 2},
        {"blocks": 2},
        {"blocks": [3, 4]},
        teacher="one",
    )
    built(tmp_path / "one", parent, second, tmp_path / "two")
    card = Card.load(tmp_path / "two" / "card.json")
    assert (card.teacher, card.original, card.original_fingerprint) == (
        "one",
        "tiny",
        teacher.fingerprint,
    )
    assert [link["teacher"] for link in card.chain] == ["tiny", "one"]
    assert (card.original_parameters, card.teacher_parameters) == (
        teacher.parameters,
        parent.parameters,
    )
    assert card.original_plan is not None
    composed = Plan.parse(card.original_plan, "card")
    assert [span.as_yaml() for span in composed.stacks[STACK]] == [
        {"blocks": [0, 1], "init": "mean", "gain": 2},
        {"blocks": [2, 3]},
        {"blocks": [4, 5], "gain": 2},
    ]
    built(folder, teacher, composed, tmp_path / "direct")
    assert checkpoints.fingerprint(tmp_path / "direct" / "transformer") == checkpoints.fingerprint(
        tmp_path / "two" / "transformer"
    )


def random_spans(depth: int, rng: random.Random) -> list[dict]:
    cuts = [0, *sorted(rng.sample(range(1, depth), rng.randrange(depth))), depth]
    return [
        {
            "blocks": [a, b - 1],
            "init": rng.choice(["first", "last", "middle", "mean"]),
            "gain": rng.choice([1, 2]),
        }
        for a, b in pairwise(cuts)
    ]


@pytest.mark.parametrize("seed", range(60))
def test_composing_plans_composes_the_weights(seed: int) -> None:
    rng, row = random.Random(seed), FAMILIES["qwenimage"].stack(STACK)
    teacher = [
        {
            "img_mod.1.bias": torch.randn(6, dtype=torch.float64),
            "x": torch.randn(2, dtype=torch.float64),
        }
        for _ in range(7)
    ]
    inner = plan_of(*random_spans(7, rng))
    parent = [
        weights_from_span.student_block_state(teacher.__getitem__, span, row)
        for span in inner.stacks[STACK]
    ]
    outer = plan_of(*random_spans(len(parent), rng))
    composed = plans.compose(outer, inner)
    if composed is None:
        return
    for span, whole in zip(outer.stacks[STACK], composed.stacks[STACK], strict=True):
        steps, at_once = (
            weights_from_span.student_block_state(*given, row)
            for given in ((parent.__getitem__, span), (teacher.__getitem__, whole))
        )
        assert all(torch.allclose(steps[name], at_once[name], rtol=1e-12) for name in steps)


def test_what_no_span_can_tell_is_not_composed() -> None:
    inner = plan_of({"blocks": [0, 2], "init": "mean"}, {"blocks": 3})
    # unequal weights
    assert plans.compose(plan_of({"blocks": [0, 1], "init": "mean"}), inner) is None
    # the mean of some blocks of the span
    assert plans.compose(plan_of({"blocks": [0, 1]}), inner) is None
    even = plan_of({"blocks": [0, 1], "init": "mean"}, {"blocks": [2, 3], "init": "mean"})
    told = plans.compose(plan_of({"blocks": [0, 1], "init": "mean"}), even)
    assert told is not None and told.stacks[STACK][0].as_yaml() == {
        "blocks": [0, 3],
        "init": "mean",
    }


def test_bad_targets(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    plan, taken = plan_of(*MIXED), tmp_path / "taken"
    taken.mkdir()
    built(folder, teacher, plan, taken)  # empty: fine
    built(folder, teacher, plan, taken)  # an older student: replaced
    (taken / "card.json").unlink()
    with refused(found=f"{taken} exists", do="-o"):
        built(folder, teacher, plan, taken)
    (tmp_path / "file").write_text("x")
    with refused(found=str(tmp_path / "file"), do="-o"):
        built(folder, teacher, plan, tmp_path / "file")
    for inside in (folder, folder / "student", folder.parent):
        with refused(found=f"{inside} is", do="-o"):
            built(folder, teacher, plan, inside)
    assert not list(tmp_path.glob(".*"))


def test_bad_plans(folder: Path, teacher: Teacher, pipe: Pipeline, tmp_path: Path) -> None:
    kept = [{"blocks": b} for b in range(6)]
    for spans, block in ((kept[:5], "block 5"), ([*kept, {"blocks": 6}], "block 6")):
        with refused(found=block):
            built(folder, teacher, plan_of(*spans), tmp_path / "out")
        with refused(found=block), surgery.applied(pipe, plan_of(*spans)):
            pass
    assert not list(tmp_path.iterdir()) and len(pipe.transformer.transformer_blocks) == 6


def test_too_little_space(
    folder: Path, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))  # type: ignore[attr-defined]
    with refused(found=str(tmp_path / "out"), expected="GiB"):
        built(folder, teacher, plan_of(*MIXED), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_abandoned_build_leaves_nothing(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    building = surgery.build(folder, teacher, plan_of(*MIXED), tmp_path / "out")
    next(building), next(building)
    assert len(list(tmp_path.iterdir())) == 1
    building.close()
    assert not list(tmp_path.iterdir())


def test_a_student_that_stood_aside_for_a_killed_build_comes_back(
    folder: Path, teacher: Teacher, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    built(folder, teacher, plan_of(*MIXED), out)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    os.rename(out, tmp_path / f".out.old-{gone.pid}")
    building = surgery.build(folder, teacher, plan_of(*MIXED), out)
    next(building)
    assert (out / "card.json").is_file()
    building.close()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


CHILD = """
import sys, time
from workbench import models, surgery
from workbench.records import Plan
folder, plan, out = sys.argv[1:]
for progress in surgery.build(folder, models.describe(folder, "tiny"), Plan.load(plan), out):
    print(progress.step, flush=True)
    time.sleep(0.05 if progress.step < 60 else 60)
"""


def test_a_killed_build_leaves_no_target(folder: Path, teacher: Teacher, tmp_path: Path) -> None:
    plan, out = plan_of(*MIXED).save(tmp_path / "plan.yaml"), tmp_path / "students" / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), str(plan), str(out)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 60:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    left = [p.name for p in out.parent.iterdir()]
    assert not out.exists() and left == [f".out.partial-{child.pid}"]
    built(folder, teacher, plan_of(*MIXED), out)
    assert [p.name for p in out.parent.iterdir()] == ["out"]  # the next build sweeps up
    assert json.loads((out / "card.json").read_text())["stock"] is True
