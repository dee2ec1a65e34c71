"""Six families encoded by their own pipelines: training hands a transformer what sampling hands it.
Buckets and shards of pictures.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.distillation.test_stages import FED, FULL
from tests.tiny import SIZE
from tests.tiny_pipelines import PIPELINES, tiny_pipeline
from workbench import models, surgery
from workbench.distillation.loop import distill
from workbench.records import BadInput, DistillSpec, Plan, Span, Timesteps
from workbench.training.batch import Drawing
from workbench.training.batch_source import LatentSource
from workbench.training.cache import Shard
from workbench.training.encode import cache_writer, latents, pictures, pipeline_calls
from workbench.training.encode.pictures import sizes
from workbench.training.model_inputs import inputs_of

NAMES = ["qwenimage", *PIPELINES]
PROMPTS = ["a red circle", "two blue square on the background"]
END = Drawing(timesteps=Timesteps(kind="trajectory"))


@pytest.fixture(scope="module", params=NAMES)
def pipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return models.load_pipeline(
        tiny_pipeline(request.param, tmp_path_factory.mktemp(request.param))
    )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return models.load_pipeline(tiny_pipeline("qwenimage", tmp_path_factory.mktemp("qwen")))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return (
        torch.equal(one.float(), other.float()) if isinstance(one, torch.Tensor) else one == other
    )


def test_prompts_become_batches_that_look_like_the_samplers_calls(pipe: Any, tmp_path: Path):
    result = list(
        cache_writer.cache_prompts(pipe, PROMPTS, tmp_path, size=SIZE, steps=2, guidance=2.0)
    )[-1].result
    source = LatentSource.from_folder(tmp_path, dropout=0.0)
    # where sampling begins
    seed = next(s for s in range(50) if source.batch(0, 2, s, END).sigma.tolist() == [1.0, 1.0])
    batch = source.batch(0, 2, seed, END)
    order = [PROMPTS[int(i)] for i in source._sample_order(0, seed, 0)]
    called = pipeline_calls.first_call(
        pipe, order, (SIZE, SIZE), guidance=2.0 if source.guidance is not None else 1.0
    )
    made = batch.arguments()
    names = [
        name
        for name in made
        if name not in (batch.inputs.latents, batch.inputs.mask, "return_dict")
    ]
    assert batch.inputs.timestep in names and result["samples"] == 2
    for name in names:
        ours, theirs = made[name], called[name]
        if name in batch.inputs.text and batch.inputs.mask:  # the pipeline may pad further
            lengths = called[batch.inputs.mask].bool().sum(1).tolist()
            ours, theirs = (
                [x[:n] for x, n in zip(ours, lengths, strict=True)],
                [x[:n] for x, n in zip(theirs, lengths, strict=True)],
            )
        assert equal(ours, theirs), name
    assert type(made[batch.inputs.latents]) is type(called[batch.inputs.latents])
    assert (
        models.prediction(pipe.transformer(**made), pipe.transformer).numel() == batch.clean.numel()
    )


def test_sampled_latents_are_the_pipelines_own(pipe: Any, tmp_path: Path):
    list(cache_writer.cache_prompts(pipe, PROMPTS, tmp_path, size=SIZE, steps=2, guidance=2.0))
    arguments = models.call_arguments(
        pipe, [(p, i) for i, p in enumerate(PROMPTS)], 2, 2.0, " ", SIZE
    )
    wanted = pipe(**arguments, output_type="latent").images
    held = torch.stack(
        [Shard(tmp_path / "data-00000.safetensors").sample(i).latents.float() for i in (0, 1)]
    )
    assert torch.allclose(held, wanted.reshape(held.shape), rtol=2e-3, atol=2e-3)


def test_pictures_become_what_the_vae_makes_of_them(pipe: Any, tmp_path: Path):
    picture = Image.effect_noise((SIZE, SIZE), 60).convert("RGB")
    list(cache_writer.cache_images(pipe, [(picture, "a circle")], tmp_path, size=SIZE))
    source = LatentSource.from_folder(tmp_path)
    with torch.no_grad():
        assert torch.isfinite(source.batch(0, 1, 0).predict(pipe.transformer)).all()
    held = source.buckets[0].sample(0).latents.float()
    pixels = pipe.image_processor.preprocess([picture])
    if models.family_of(pipe.transformer).name in ("sd3", "zimage", "pixart", "flux"):
        mode = pipe.vae.encode(pixels).latent_dist.mode()[0] * pipe.vae.config.scaling_factor
        if held.ndim == 2:
            held = pipe._unpack_latents(held[None], SIZE, SIZE, pipe.vae_scale_factor)[0]
        assert torch.allclose(held, mode, rtol=2e-3, atol=2e-3)


def test_every_family_distils(pipe: Any, tmp_path: Path):
    list(cache_writer.cache_prompts(pipe, PROMPTS, tmp_path, size=SIZE, steps=2))
    teacher, stacks = pipe.transformer, {}
    for path, blocks in models.blocks_of(pipe.transformer).items():
        stacks[path] = [Span(blocks=(0, 1)), *[Span(blocks=(i, i)) for i in range(2, len(blocks))]]
    plan = Plan(teacher="tiny", family=models.family_of(teacher).name, stacks=stacks)
    student = surgery.student_transformer(teacher, plan)
    stages = [
        FED.model_copy(update={"steps": 12, "batch": 2, "optimizer": "adamw"}),
        FULL.model_copy(update={"steps": 2, "batch": 2}),
    ]
    result = list(
        distill(
            student, teacher, plan, DistillSpec(stages=stages), LatentSource.from_folder(tmp_path)
        )
    )[-1].result
    rows = [row for row in result["recoverability"] if row["stage"] == "fed"]
    assert len(rows) == len(stacks) and sum(r["after"] for r in rows) < sum(
        r["before"] for r in rows
    )


def test_a_ddpm_is_noised_as_its_scheduler_does(tmp_path: Path):
    pipe = models.load_pipeline(tiny_pipeline("pixart", tmp_path / "pipe"))
    list(cache_writer.cache_prompts(pipe, PROMPTS, tmp_path / "c", size=SIZE, steps=2))
    batch = LatentSource.from_folder(tmp_path / "c").batch(0, 2, 0)
    from diffusers import DDPMScheduler

    wanted = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(
        batch.clean, batch.noise, batch.ddpm_steps
    )
    assert torch.allclose(batch.noisy, wanted, atol=1e-5) and torch.equal(
        batch.velocity, batch.noise
    )


def test_buckets_keep_the_shape_of_pictures(qwen: Any, tmp_path: Path):
    pictures = [
        Image.new("RGB", size, (i * 20, 0, 0))
        for i, size in enumerate([(64, 64), (96, 64), (64, 96), (100, 62), (60, 60)])
    ]
    last = list(
        cache_writer.cache_images(
            qwen, [(p, f"picture {i}") for i, p in enumerate(pictures)], tmp_path, size=64
        )
    )[-1]
    source = LatentSource.from_folder(tmp_path)
    assert last.result["samples"] == len(source) == 5 and {tuple(s) for s in sizes(64, 16)} >= {
        (64, 64),
        (48, 80),
        (80, 48),
    }
    by_shape = {bucket.shape: len(bucket) for bucket in source.buckets}
    assert by_shape == {(1, 4, 4): 2, (1, 3, 5): 2, (1, 5, 3): 1}
    shapes = [source.batch(step, 2, 0).condition["img_shapes"][0][0] for step in range(3)]
    assert sorted(shapes) == sorted(by_shape), "each bucket has its turn in an epoch"
    whole, parts = (
        source.batch(4, 2, 0),
        [source.batch(4, 2, 0, Drawing(part=(i, 2))) for i in (0, 1)],
    )
    assert torch.equal(whole.noisy, torch.cat([part.noisy for part in parts])), (
        "processes share a batch of one bucket"
    )
    with torch.no_grad():
        assert whole.predict(qwen.transformer).shape == whole.clean.shape


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), colour).save(buffer, "png")
    return buffer.getvalue()


def test_webdataset_shards_hold_what_a_folder_holds(qwen: Any, tmp_path: Path):
    shards = tmp_path / "shards"
    shards.mkdir()
    tar(
        shards / "a-0.tar",
        {
            "x/1.png": png("red"),
            "x/1.txt": b"a red circle",
            "x/2.png": b"no picture",
            "x/2.json": b'{"text": "b"}',
        },
    )
    tar(
        shards / "a-1.tar",
        {
            "1.png": png("blue"),
            "1.json": json.dumps({"caption": "two blue square"}).encode(),
            "3.png": png("green"),
        },
    )
    (shards / "a-2.tar").write_bytes(b"no tar")
    last = list(
        cache_writer.cache_images(qwen, pictures.pictures_in(shards), tmp_path / "tar", size=SIZE)
    )[-1].result
    assert last["samples"] == 2
    reasons = [
        (row["item"].rpartition("/")[2], row["reason"].split(" (")[0]) for row in last["skipped"]
    ]
    assert reasons == [
        ("2.png", "not a readable picture"),
        ("3.png", "no caption"),
        ("a-2.tar", "not a readable picture"),
    ]
    folder = tmp_path / "folder"
    folder.mkdir()
    rows = []
    for colour, caption in (("red", "a red circle"), ("blue", "two blue square")):
        (folder / f"{colour}.png").write_bytes(png(colour))
        rows.append(json.dumps({"file_name": f"{colour}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    list(
        cache_writer.cache_images(qwen, pictures.pictures_in(folder), tmp_path / "plain", size=SIZE)
    )
    one, other = (
        LatentSource.from_folder(tmp_path / name).batch(0, 2, 0) for name in ("tar", "plain")
    )
    assert torch.equal(one.noisy, other.noisy) and equal(
        one.condition["encoder_hidden_states"], other.condition["encoder_hidden_states"]
    )


def test_a_torn_shard_of_an_unfinished_cache_is_made_again(qwen: Any, tmp_path: Path):
    list(cache_writer.cache_prompts(qwen, PROMPTS, tmp_path, size=SIZE, steps=2, shard=1))
    whole = (tmp_path / "data-00000.safetensors").read_bytes()
    (tmp_path / "data.json").unlink()
    (tmp_path / "data-00000.safetensors").write_bytes(whole[:-100])
    list(cache_writer.cache_prompts(qwen, PROMPTS, tmp_path, size=SIZE, steps=2, shard=1))
    assert (tmp_path / "data-00000.safetensors").read_bytes() == whole


def test_a_cache_that_lost_samples_is_refused(qwen: Any, tmp_path: Path):
    list(cache_writer.cache_prompts(qwen, PROMPTS, tmp_path, size=SIZE, steps=2, shard=1))
    (tmp_path / "data-00001.safetensors").write_bytes((tmp_path / "empty.safetensors").read_bytes())
    about = json.loads((tmp_path / "data.json").read_text())
    about["buckets"][0]["samples"] = 3
    (tmp_path / "data.json").write_text(json.dumps(about))
    with pytest.raises(BadInput) as error:
        LatentSource.from_folder(tmp_path)
    assert error.value.found.endswith("has 2 samples of shape [1, 2, 2]")
    assert error.value.expected == "3, by its data.json"


def test_latents_that_are_not_finite_are_left_out_and_named(
    qwen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encoded = latents.encoded
    spoil = torch.tensor([1, torch.nan])[:, None, None]
    monkeypatch.setattr(
        latents, "encoded", lambda pipe, images, size: encoded(pipe, images, size) * spoil
    )
    pairs = [(Image.new("RGB", (SIZE, SIZE)), "a circle")] * 2
    result = list(cache_writer.cache_images(qwen, pairs, tmp_path, size=SIZE))[-1].result
    assert result["samples"] == 1 and [row["reason"] for row in result["skipped"]] == [
        "its latents are not finite"
    ]


def test_families_that_cannot_be_encoded_are_named():
    with pytest.raises(BadInput) as error:
        inputs_of("qwenimage21")
    assert error.value.expected.startswith("one of qwenimage, flux, flux2, sd3, hunyuanimage")
