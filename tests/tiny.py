"""Tiny random models, complete and offline: a QwenImagePipeline folder of some megabytes that runs
in milliseconds.

Every block matters: gates, modulation and the output projection are random, not the zeros a
training starts from.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

SIZE = 32  # pixels: 2 x 2 image tokens
TEXT_DIM, Z_DIM = 32, 4
WORDS = (
    "Describe the image by detailing the color shape size texture quantity text spatial "
    "relationships of the objects and "
    "background a an red blue green circle square on in word two three left right"
)
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PREFIX = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)


GATED = (
    "_mod.",
    "norm1.linear",
    "norm1_context.linear",
    "norm.linear",
    "adaLN_modulation",
    "modulation",
    "scale_shift_table",
)


def tiny_tokenizer() -> Qwen2Tokenizer:
    """A byte-level tokenizer whose words are whole tokens; the pipeline's template has 34 of them,
    as it must.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    # GPT-2's stand-ins for bytes
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges: list[tuple[str, str]] = []
    for word in [f"Ġ{w}" for w in WORDS.split()] + ["system", "user", "assistant", *WORDS.split()]:
        for end in range(2, len(word) + 1):
            if (pair := (word[: end - 1], word[end - 1])) not in merges:
                merges.append(pair)
            vocabulary.setdefault(word[:end], len(vocabulary))
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary, merges=merges, extra_special_tokens=list(SPECIAL[1:])
    )
    assert len(tokenizer(PREFIX).input_ids) == 34, "the pipeline drops exactly 34 tokens"
    return tokenizer


def tiny_text_encoder(
    tokenizer: Qwen2Tokenizer, depth: int = 1
) -> Qwen2_5_VLForConditionalGeneration:
    special = {
        f"{name.removesuffix('_pad')}_token_id": tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "vision_end", "image_pad", "video_pad")
    }
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "hidden_size": TEXT_DIM,
                "num_hidden_layers": depth,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
                "intermediate_size": 32,
                "vocab_size": len(tokenizer),
                "rms_norm_eps": 1e-6,
                "max_position_embeddings": 1024,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [4, 2, 2],
                },
                "bos_token_id": None,
                "eos_token_id": None,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": TEXT_DIM,
                "fullatt_block_indexes": [0],
            },
            tie_word_embeddings=True,
            **special,
        )
    )


def randomise(module: torch.nn.Module, seed: int = 0, gate: float = 0.3) -> None:
    """Weights of unit gain, biases and norms near their usual values but none equal: nothing is
    zero or tied by chance.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in module.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim > 1:
            scale = gate if any(mark in name for mark in GATED) else 1.0
            p.data.copy_(noise * scale * p.shape[1] ** -0.5)
        else:
            p.data.copy_(0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def tiny_transformer(
    depth: int = 6,
    seed: int = 0,
    heads: int = 2,
    head_dim: int = 16,
    z_dim: int = Z_DIM,
    text_dim: int = TEXT_DIM,
) -> QwenImageTransformer2DModel:
    """A random Qwen-Image transformer; about 54 k parameters a block at the defaults."""
    model = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * z_dim,
        out_channels=z_dim,
        num_layers=depth,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=text_dim,
        axes_dims_rope=(head_dim // 2, head_dim // 4, head_dim // 4),
    )
    randomise(model, seed)
    return model.eval()


def tiny_inputs(
    batch: int = 2,
    seed: int = 0,
    text: int = 5,
    grid: tuple[int, int] = (2, 3),
    timestep: float = 0.5,
    z_dim: int = Z_DIM,
    text_dim: int = TEXT_DIM,
    dtype: torch.dtype = torch.float32,
) -> dict[str, object]:
    """Inputs of `tiny_transformer`, with as many text tokens as asked; image and text lengths
    differ.
    """
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, text, dtype=torch.long)
    mask[-1, text - 1 :] = 0  # one padded prompt
    return {
        "hidden_states": torch.randn(batch, grid[0] * grid[1], 4 * z_dim, generator=generator).to(
            dtype
        ),
        "encoder_hidden_states": torch.randn(batch, text, text_dim, generator=generator).to(dtype),
        "encoder_hidden_states_mask": mask,
        "timestep": torch.full((batch,), timestep, dtype=dtype),
        "img_shapes": [[(1, *grid)]] * batch,
        "return_dict": False,
    }


def tiny_qwen_pipeline(folder: Path, depth: int = 6, seed: int = 0) -> Path:
    """Write a complete random QwenImagePipeline (about 2 MB) into `folder` and return it."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=Z_DIM,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        attn_scales=[],
        temperal_downsample=[False, False, False],
        latents_mean=[0.0] * Z_DIM,
        latents_std=[1.0] * Z_DIM,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000,
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
        time_shift_type="exponential",
    )
    pipeline = QwenImagePipeline(
        scheduler=scheduler,
        vae=vae,
        text_encoder=tiny_text_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=tiny_transformer(depth, seed),
    )
    pipeline.save_pretrained(folder)
    return Path(folder)
