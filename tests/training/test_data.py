"""Samples: the same for the same (seed, step), cached whole or not at all, and noised as the
teacher was trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests import tiny
from workbench import models
from workbench.records import BadInput, Timesteps
from workbench.training.batch_source import LatentSource
from workbench.training.cache import Shard
from workbench.training.encode import cache_writer, pictures, pipeline_calls

PROMPTS = [
    "a red circle on blue",
    "two green square",
    "a circle",
    "three red square on a blue background",
]


@pytest.fixture(scope="session")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> object:
    return models.load_pipeline(tiny.tiny_qwen_pipeline(tmp_path_factory.mktemp("pipe"), depth=2))


def test_batches_depend_on_seed_and_step_alone(source: LatentSource):
    one, again, other = source.batch(5, 4, 1), source.batch(5, 4, 1), source.batch(5, 4, 2)
    assert torch.equal(one.noisy, again.noisy) and torch.equal(one.sigma, again.sigma)
    assert not torch.equal(one.noise, other.noise)
    halves = [source.batch(10, 2, 1), source.batch(11, 2, 1)]
    assert torch.equal(torch.cat([h.noisy for h in halves]), one.noisy)


def test_an_epoch_has_every_sample_once(source: LatentSource):
    seen = torch.cat([source.batch(step, 6, 3).clean for step in range(4)])
    assert len({tuple(x.flatten()[:4].tolist()) for x in seen}) == len(source) == 24


def test_noising_is_flow_matching(source: LatentSource):
    batch = source.batch(0, 6, 0)
    s = batch.sigma[:, None, None]
    assert torch.allclose(batch.noisy, (1 - s) * batch.clean + s * batch.noise)
    # one Euler step to s = 0
    assert torch.allclose(batch.noisy - s * batch.velocity, batch.clean, atol=1e-5)
    sigma = torch.cat([source.batch(i, 24, 9).sigma for i in range(60)])
    assert (
        abs(float(torch.logit(sigma).mean()) - Timesteps().mean) < 0.1
        and abs(float(torch.logit(sigma).std()) - Timesteps().std) < 0.1
    )
    assert "timestep" in batch.arguments() and torch.equal(
        batch.arguments()["timestep"], batch.sigma
    )


def test_a_share_of_prompts_is_empty(source: LatentSource):
    texts = torch.cat(
        [
            (source.batch(i, 24, 0).condition["encoder_hidden_states"][:, 0] == 1).all(1)
            for i in range(40)
        ]
    )
    assert 0.06 < float(texts.float().mean()) < 0.14


def test_text_embeddings_are_those_of_the_pipeline(pipe: object):
    embeds, mask = pipe.encode_prompt(PROMPTS)
    for text, row, real in zip(
        pipeline_calls.text_embeddings(pipe, PROMPTS, (tiny.SIZE, tiny.SIZE)),
        embeds,
        mask,
        strict=True,
    ):
        assert torch.equal(text["encoder_hidden_states"], row[real.bool()])


def test_prompts_are_enough(pipe: object, tmp_path: Path):
    last = list(
        cache_writer.cache_prompts(
            pipe, PROMPTS, tmp_path, size=tiny.SIZE, steps=2, guidance=2, shard=3, batch=2
        )
    )[-1]
    assert last.result["samples"] == 4 and last.step == last.total == 4
    batch = LatentSource.from_folder(tmp_path).batch(0, 4, 0)
    assert batch.predict(pipe.transformer).shape == batch.clean.shape == (4, 4, 4 * tiny.Z_DIM)
    wanted = pipe(
        prompt=PROMPTS[:2],
        negative_prompt=[" "] * 2,
        true_cfg_scale=2,
        num_inference_steps=2,
        height=tiny.SIZE,
        width=tiny.SIZE,
        generator=[torch.Generator().manual_seed(s) for s in (0, 1)],
        output_type="latent",
    ).images
    assert torch.allclose(
        Shard(tmp_path / "data-00000.safetensors").sample(1).latents.float(), wanted[1], atol=2e-3
    )


def test_pictures_become_the_latents_that_decode_to_them(pipe: object, tmp_path: Path):
    picture = Image.effect_noise((tiny.SIZE, tiny.SIZE), 60).convert("RGB")
    list(cache_writer.cache_images(pipe, [(picture, "a circle")], tmp_path, size=tiny.SIZE))
    latents = Shard(tmp_path / "data-00000.safetensors").sample(0).latents
    pixels = pipe.image_processor.preprocess([picture])[:, :, None]
    unpacked = pipe._unpack_latents(
        latents[None].float(), tiny.SIZE, tiny.SIZE, pipe.vae_scale_factor
    )
    assert torch.allclose(unpacked, pipe.vae.encode(pixels).latent_dist.mode(), atol=5e-3)


def test_broken_pictures_and_captions_are_named_and_skipped(pipe: object, tmp_path: Path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 30), "red").save(folder / "good.png")
    (folder / "broken.png").write_bytes(b"no picture")
    rows = [
        {"file_name": "good.png", "text": "a circle"},
        {"file_name": "broken.png", "text": "b"},
        {"file_name": "good.png"},
        {"file_name": "missing.png", "text": "c"},
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{not json\n")
    last = list(
        cache_writer.cache_images(
            pipe, pictures.image_folder(folder), tmp_path / "cache", size=tiny.SIZE
        )
    )[-1]
    assert last.result["samples"] == 1
    reasons = [s["reason"].split(" (")[0] for s in last.result["skipped"]]
    assert reasons == [
        "not a readable picture",
        "no caption",
        "not a readable picture",
        "no caption",
    ]
    assert "broken.png" in last.result["skipped"][0]["item"]


def test_an_interrupted_cache_goes_on(pipe: object, tmp_path: Path):
    pairs = [(Image.new("RGB", (32, 32), (40 * i, 0, 0)), PROMPTS[i]) for i in range(4)]
    polls = iter([False, True])
    stopped = list(
        cache_writer.cache_images(
            pipe, pairs, tmp_path, size=tiny.SIZE, shard=2, batch=2, stop=lambda: next(polls)
        )
    )[-1]
    assert stopped.result["stopped"]
    with pytest.raises(BadInput) as error:
        LatentSource.from_folder(tmp_path)
    assert error.value.expected == "a finished latent cache"
    kept = (tmp_path / "data-00000.safetensors").stat().st_mtime_ns
    last = list(cache_writer.cache_images(pipe, pairs, tmp_path, size=tiny.SIZE, shard=2, batch=2))[
        -1
    ]
    assert (
        last.result["samples"] == 4
        and (tmp_path / "data-00000.safetensors").stat().st_mtime_ns == kept
    )


@pytest.mark.parametrize(
    "spoil", [lambda f: f.write_bytes(f.read_bytes()[:40]), lambda f: f.unlink()]
)
def test_a_damaged_shard_is_refused(pipe: object, tmp_path: Path, spoil: Callable[[Path], object]):
    list(cache_writer.cache_prompts(pipe, PROMPTS[:1], tmp_path, size=tiny.SIZE, steps=2))
    spoil(tmp_path / "data-00000.safetensors")
    with pytest.raises(BadInput) as error:
        LatentSource.from_folder(tmp_path)
    assert "data-00000.safetensors is damaged" in error.value.found


def image_folder(folder: Path, captions: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [json.dumps({"file_name": name, "text": text}) for name, text in captions.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


def test_a_picture_replaced_under_its_old_name_is_encoded_again(pipe: object, tmp_path: Path):
    """Latents belong to the picture's content, of files and of pictures in memory."""
    folder = image_folder(tmp_path / "pictures", {"a.png": "a circle"})
    latents = []
    for colour in ("red", "blue"):
        picture = Image.new("RGB", (32, 32), colour)
        picture.save(folder / "a.png")
        for name, pairs in {
            "file": pictures.image_folder(folder),
            "memory": [(picture, "a circle")],
        }.items():
            cache = tmp_path / name
            list(cache_writer.cache_images(pipe, pairs, cache, size=tiny.SIZE))
            latents.append(Shard(cache / "data-00000.safetensors").sample(0).latents)
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[2], latents[3])
    assert not torch.equal(latents[0], latents[2])


def test_where_nothing_can_be_encoded_the_first_reason_is_said(pipe: object, tmp_path: Path):
    folder = image_folder(tmp_path / "pictures", {"a.png": "", "b.png": "a circle"})
    with pytest.raises(BadInput) as error:
        list(
            cache_writer.cache_images(pipe, pictures.image_folder(folder), tmp_path / "c", size=32)
        )
    assert "2 skipped" in error.value.found and "no caption" in error.value.found
