"""Tiny random pipelines of the families whose components are larger or unlike the others': the
second half of tiny_pipelines.py. Sizes are about those of diffusers' own tests of each class.
"""

from __future__ import annotations

from typing import Any

import diffusers
import transformers as tf
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLHunyuanImage, AutoencoderKLWan

from tests.tiny import tiny_text_encoder, tiny_tokenizer
from tests.tiny_parts import FOUR, WIDTH, chat_tokenizer, flow, llm, t5_tokenizer, transformer


def umt5(tokenizer: tf.T5Tokenizer) -> tf.UMT5EncoderModel:
    return tf.UMT5EncoderModel(
        tf.UMT5Config(
            vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2
        )
    )


def auraflow() -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=umt5(tokenizer),
        vae=AutoencoderKL(**FOUR),
        transformer=transformer("auraflow", joint_attention_dim=WIDTH),
        scheduler=flow(shift=1.73),
    )


def cogview4() -> Any:
    tokenizer = chat_tokenizer()
    return diffusers.CogView4Pipeline(
        tokenizer=tokenizer,
        text_encoder=llm("Glm", tokenizer, 2),
        vae=AutoencoderKL(**FOUR),
        transformer=transformer("cogview4", text_embed_dim=WIDTH),
        scheduler=flow(
            base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def lumina2() -> Any:
    tokenizer = chat_tokenizer()
    return diffusers.Lumina2Pipeline(
        transformer=transformer("lumina2", cap_feat_dim=WIDTH, axes_lens=(512, 16, 16)),
        scheduler=flow(shift=6.0),
        vae=AutoencoderKL(**FOUR, shift_factor=0.0),
        text_encoder=llm("Gemma2", tokenizer, 2),
        tokenizer=tokenizer,
    )


def sana() -> Any:
    tokenizer = t5_tokenizer()  # which ends even an empty prompt in a token, as Gemma begins one
    vae = AutoencoderDC(  # 8 pixels a latent here, 32 in the published one
        in_channels=3,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock",) * 4,
        decoder_block_types=("ResBlock",) * 4,
        encoder_block_out_channels=(4, 4, 4, 4),
        decoder_block_out_channels=(4, 4, 4, 4),
        encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4,
        encoder_layers_per_block=(1,) * 4,
        decoder_layers_per_block=(1,) * 4,
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=llm("Gemma2", tokenizer, 1),
        vae=vae,
        transformer=transformer("sana", caption_channels=WIDTH),
        scheduler=flow(shift=3.0),
    )


def dit() -> Any:
    return diffusers.DiTPipeline(
        transformer=transformer("dit", num_embeds_ada_norm=1000, sample_size=4),
        vae=AutoencoderKL(**FOUR),
        scheduler=diffusers.DDIMScheduler(),
        id2label={0: "tench", 207: "golden retriever, retriever"},
    )


def wan() -> Any:
    tokenizer = t5_tokenizer()
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=umt5(tokenizer),
        vae=vae,
        scheduler=flow(shift=5.0),
        transformer=transformer("wan", text_dim=WIDTH, rope_max_seq_len=64),
    )


def longcat() -> Any:
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(tokenizer)
    return diffusers.LongCatImagePipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=AutoencoderKL(**{**FOUR, "latent_channels": 16}, shift_factor=0.0),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_processor=tokenizer,  # would rewrite prompts; sampling goes without
        transformer=transformer(
            "longcat", in_channels=64, joint_attention_dim=encoder.config.text_config.hidden_size
        ),
    )


def ovis() -> Any:
    tokenizer = chat_tokenizer()
    return diffusers.OvisImagePipeline(
        scheduler=flow(use_dynamic_shifting=True),
        vae=AutoencoderKL(**FOUR, shift_factor=0.0),
        text_encoder=llm("Qwen3", tokenizer, 1),
        tokenizer=tokenizer,
        transformer=transformer("ovis", in_channels=16, out_channels=16, joint_attention_dim=WIDTH),
    )


def hunyuanimage() -> Any:
    tokenizer = tiny_tokenizer()
    encoder = tiny_text_encoder(tokenizer, depth=3)  # the text is read two blocks below the last
    letters = tf.ByT5Tokenizer()
    glyphs = tf.T5EncoderModel(
        tf.T5Config(
            vocab_size=len(letters), d_model=WIDTH, d_kv=8, d_ff=16, num_layers=1, num_heads=2
        )
    )
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=8,
        sample_size=32,
        scaling_factor=0.5,
    )
    return diffusers.HunyuanImagePipeline(
        scheduler=flow(shift=5.0),
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=glyphs,
        tokenizer_2=letters,
        transformer=transformer(
            "hunyuanimage",
            text_embed_dim=encoder.config.text_config.hidden_size,
            text_embed_2_dim=WIDTH,
        ),
        guider=diffusers.AdaptiveProjectedMixGuidance(guidance_scale=3.5),
    )
