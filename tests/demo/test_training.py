"""Training end to end on tiny parts: the fast path equals the stock models, a resumed run equals an
unbroken one.
"""

import json

import pytest
import torch
from diffusers import DiffusionPipeline, QwenImagePipeline

from workbench.demo.render import COVER_CLASSES
from workbench.demo.scenes import caption, prompt_set
from workbench.demo.training import train as cli
from workbench.demo.training.diffusion import Settings, Trainer, load_checkpoint, train
from workbench.demo.training.fast import text_forward, transformer_forward
from workbench.demo.training.grow import grow
from workbench.demo.training.latents import (
    MIX,
    Shards,
    make_latents,
    pack,
    pad_tokens,
    set_statistics,
    shard_plan,
)
from workbench.demo.training.models import (
    build_pipeline,
    build_text_encoder,
    build_transformer,
    prepare,
)
from workbench.demo.training.vae import (
    build_vae,
    decode,
    encode,
    flat_copy,
    fold_back,
    initialise,
    train_vae,
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """A run folder with a random VAE and the first few scenes."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    vae = build_vae(base=8)
    set_statistics(vae, 2)
    vae.save_pretrained(folder / "vae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.demo.training.latents.SHARD", 6)
        assert len(list(make_latents(vae, folder / "latents", 40))) == 7
    return folder


def tiny_trainer(layers=2, **changes):
    torch.manual_seed(1)
    settings = Settings(batch=4, compiled=False, warmup=2, **changes)
    return Trainer(build_transformer(layers), build_text_encoder(), settings, len(COVER_CLASSES))


def perturbed(model, scale=0.05):
    for p in model.parameters():
        p.data += torch.randn_like(p) * scale
    return model


def test_the_flat_copy_is_the_vae():
    torch.manual_seed(0)
    vae = build_vae(base=8)
    twin = flat_copy(vae)
    images = torch.rand(2, 3, 32, 32) * 2 - 1

    def same_pictures(atol):
        stock = vae.decode(latents, return_dict=False)[0][:, :, 0]
        assert torch.allclose(decode(twin, latents[:, :, 0]).clamp(-1, 1), stock, atol=atol)

    with torch.no_grad():
        latents = vae.encode(images[:, :, None]).latent_dist.mean
        assert torch.allclose(encode(twin, images)[0], latents[:, :, 0], atol=1e-5)
        same_pictures(1e-5)
        initialise(twin)
        fold_back(twin, vae)
        same_pictures(1e-4)


def test_the_vae_learns():
    vae, count = build_vae(base=8), iter(range(99))
    losses = [s["loss"] for s in train_vae(vae, lambda: next(count) / 25, batch=2, crop=32, pool=6)]
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_latents_are_packed_as_the_pipeline_packs_them():
    latents = torch.randn(2, 8, 16, 16)
    assert torch.equal(pack(latents), QwenImagePipeline._pack_latents(latents, 2, 8, 16, 16))


def test_shards_keep_the_mix():
    made = [category for category, _ in shard_plan(100_000)]
    assert all(abs(made.count(c) / len(made) - share) < 0.02 for c, share in MIX.items())


def test_the_fast_path_is_the_stock_models():
    torch.manual_seed(0)
    text_encoder, transformer = build_text_encoder(), perturbed(build_transformer(2))
    pipeline = prepare(build_pipeline(build_vae(base=8), text_encoder, transformer))
    captions = [caption(s) for s in prompt_set(2, "train")]
    ids, lengths = pad_tokens(captions)
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    latents, sigma = torch.randn(len(captions), 64, 32), torch.rand(len(captions))
    with torch.no_grad():
        stock, _ = pipeline.encode_prompt(captions)
        text = text_forward(text_encoder, ids.long())
        assert torch.allclose(
            text[:, : stock.shape[1]][mask[:, : stock.shape[1]]],
            stock[mask[:, : stock.shape[1]]],
            atol=1e-4,
        )
        expected = transformer(
            hidden_states=latents,
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            timestep=sigma,
            img_shapes=[[(1, 8, 8)]] * len(captions),
            return_dict=False,
        )[0]
        fast, _ = transformer_forward(
            transformer, latents, sigma, text, lengths.long(), compiled=False
        )
        assert torch.allclose(fast, expected, atol=1e-4)


def test_a_resumed_run_equals_an_unbroken_one(shards, tmp_path):
    data = Shards(shards / "latents")
    unbroken = tiny_trainer()
    list(train(unbroken, data, lambda samples: samples / 32))
    first = tiny_trainer()
    steps = train(first, data, lambda samples: samples / 32)
    for _ in range(4):
        state = next(steps)
    first.save(tmp_path / "checkpoint", {"minutes": 1.5})
    first.save(tmp_path / "checkpoint", {"minutes": 2.5})  # over an older one
    second = tiny_trainer()
    assert second.load(tmp_path / "checkpoint")["minutes"] == 2.5
    assert second.samples == state["samples"] == 16
    list(train(second, data, lambda samples: samples / 32))
    ours, theirs = second.averaged(), unbroken.averaged()
    for part in ours:
        for name in ours[part]:
            assert torch.equal(ours[part][name], theirs[part][name]), name


def test_a_finished_run_continues_from_its_average(shards):
    trainer = tiny_trainer()
    list(train(trainer, Shards(shards / "latents"), lambda samples: samples / 12))
    average = trainer.averaged()["transformer"]
    trainer.restart_from_average()
    for name, p in trainer.transformer.named_parameters():
        assert torch.equal(p, average[name].to(p.dtype)), name
    assert trainer.step_count == 0


def test_growing_hardly_changes_the_prediction():
    torch.manual_seed(2)
    parent = perturbed(build_transformer(3), 0.02)
    child = grow(parent)
    assert child.config.num_layers == len(child.transformer_blocks) == 6
    text, lengths = torch.randn(4, 16, 128), torch.full((4,), 16)
    latents, sigma = torch.randn(4, 64, 32), torch.tensor([0.2, 0.5, 0.8, 0.95])
    with torch.no_grad():
        before, after = (
            transformer_forward(m, latents, sigma, text, lengths, compiled=False)[0]
            for m in (parent, child)
        )
    assert ((after - before).square().mean() / before.square().mean()) < 0.1


def test_the_command_line_trains_grows_and_exports(shards, monkeypatch):
    """Base and grow through the command line in this process, then the folder loads and samples."""
    monkeypatch.delenv("DEMO_WORLD", raising=False)
    common = [
        "--out",
        str(shards),
        "--processes",
        "1",
        "--layers",
        "2",
        "--batch",
        "4",
        "--set",
        "compiled=false",
    ]
    cli.main([*common, "--stage", "base", "--samples", "12"])
    cli.main([*common, "--stage", "grow", "--samples", "8"])
    curve = [
        json.loads(line) for line in (shards / "base" / "curve.jsonl").read_text().splitlines()
    ]
    assert curve[-1]["samples"] == 12
    pipeline = DiffusionPipeline.from_pretrained(shards / "grow" / "pipeline")
    assert pipeline.transformer.config.num_layers == 4
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        prompt=["a red circle on sky"],
        negative_prompt=[" "],
        height=128,
        width=128,
        num_inference_steps=2,
        output_type="np",
    ).images
    assert images.shape == (1, 128, 128, 3)


def test_two_processes_train_together(shards):
    """They share gradients and optimizer work; both parts of the checkpoint make one model."""
    cli.main(
        [
            "--out",
            str(shards),
            "--stage",
            "base",
            "--processes",
            "2",
            "--layers",
            "2",
            "--batch",
            "2",
            "--set",
            "compiled=false",
            "--samples",
            "12",
        ]
    )
    parts = load_checkpoint(shards / "base" / "checkpoint")
    assert len(parts) == 2
    assert parts[0]["samples"] == 12
    names = [set(part["optimizer"]["master"]) for part in parts]
    assert names[0].isdisjoint(names[1])
    assert (shards / "base" / "pipeline" / "model_index.json").exists()
