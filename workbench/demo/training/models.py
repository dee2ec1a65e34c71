"""The demo teacher's other parts: tokenizer, text encoder, transformer, scheduler, and the pipeline
folder they make.

All stock classes, only small, so that `DiffusionPipeline.from_pretrained(folder)` needs nothing of
this package.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from ..scenes import BACKGROUNDS, COLOURS, COUNT_WORDS, plural
from ..shapes import SHAPES

Model = Any  # a stock model; the decorators of its class hide its attributes from type checkers

# The pipeline's own prompt template; it drops the tokens before the prompt by number.
PREFIX = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, "
    "quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n"
PREFIX_TOKENS = 34
SUFFIX_TOKENS = 5
TEXT_TOKENS = 16  # of the longest caption with the suffix
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def _byte_letters() -> list[str]:
    """GPT-2's printable letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def _known_words() -> list[str]:
    """Every lower-case word of captions and template, with Ġ for a space before it. Words of
    pictures are spelled.
    """
    inner = [
        *SHAPES,
        *(plural(shape) for shape in SHAPES),
        *COLOURS,
        *BACKGROUNDS,
        *COUNT_WORDS.values(),
        "a",
        "an",
        "and",
        "on",
        "in",
        "word",
        "big",
        "small",
        "left",
        "right",
        "of",
        "above",
        "below",
        "the",
        "image",
        "by",
        "detailing",
        "color",
        "shape",
        "size",
        "texture",
        "quantity",
        "text",
        "spatial",
        "relationships",
        "objects",
        "background",
    ]
    first = ["system", "user", "assistant", "Describe", "a", "an", "the", *COUNT_WORDS.values()]
    return list(dict.fromkeys(["Ġ" + w for w in inner] + first))


def build_tokenizer() -> Any:
    """A byte-level tokenizer in which each known word is one token and capitals stay single
    letters.
    """
    vocabulary = {c: i for i, c in enumerate(_byte_letters())}
    merges: list[tuple[str, str]] = []
    # Words with a leading space first: BPE applies early merges first, so they grow left to right
    # without interference.
    for word in _known_words():
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            merged = word[:end]
            if pair not in merges:
                merges.append(pair)
            vocabulary.setdefault(merged, len(vocabulary))
    tokenizer: Any = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        extra_special_tokens=list(SPECIAL[1:]),
    )
    assert len(tokenizer(PREFIX).input_ids) == PREFIX_TOKENS, "the pipeline drops exactly 34 tokens"
    assert len(tokenizer(SUFFIX).input_ids) == SUFFIX_TOKENS
    return tokenizer


@cache
def shared_tokenizer() -> Any:
    """The tokenizer, built once."""
    return build_tokenizer()


def tokenize(captions: list[str]) -> list[list[int]]:
    """Token ids of captions with the suffix, without the 34 of the prefix; at most `TEXT_TOKENS`
    each.
    """
    ids = shared_tokenizer()([PREFIX + c + SUFFIX for c in captions]).input_ids
    assert max(map(len, ids)) <= PREFIX_TOKENS + TEXT_TOKENS, "a caption is too long"
    return [row[PREFIX_TOKENS:] for row in ids]


def build_text_encoder(dim: int = 128, layers: int = 2, heads: int = 4) -> Model:
    """A tiny Qwen2.5-VL. Its vision tower is never used; it is as small as it can be."""
    tokenizer = shared_tokenizer()
    special = {
        name: tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "vision_end", "image_pad", "video_pad")
    }
    half = dim // heads // 2
    section = [half - 2 * (half // 3), half // 3, half // 3]
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": dim,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "intermediate_size": 2 * dim,
            "vocab_size": len(tokenizer),
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": section,
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 32,
            "out_hidden_size": dim,
            "fullatt_block_indexes": [0],
        },
        vision_start_token_id=special["vision_start"],
        vision_end_token_id=special["vision_end"],
        image_token_id=special["image_pad"],
        video_token_id=special["video_pad"],
        tie_word_embeddings=True,
    )
    model: Model = Qwen2_5_VLForConditionalGeneration(config)
    for name, p in model.named_parameters():
        if p.ndim == 2 and "language_model.layers" in name:
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
        elif "language_model" in name and "embed_tokens" in name:
            nn.init.normal_(p, std=0.5)
    return model


def build_transformer(
    layers: int = 12, heads: int = 4, head_dim: int = 32, text_dim: int = 128, z_dim: int = 8
) -> Model:
    """A small Qwen-Image transformer with a start from which it learns at once: adaLN weights 0,
    gates 0.25, output 0.
    """
    rope = (head_dim // 8, (head_dim - head_dim // 8) // 2, (head_dim - head_dim // 8) // 2)
    model: Model = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=4 * z_dim,
        out_channels=z_dim,
        num_layers=layers,
        attention_head_dim=head_dim,
        num_attention_heads=heads,
        joint_attention_dim=text_dim,
        axes_dims_rope=rope,
    )
    dim = heads * head_dim
    for name, p in model.named_parameters():
        if p.ndim == 2:
            nn.init.normal_(p, std=p.shape[1] ** -0.5)
        if (
            "_mod." in name
            or "norm_out.linear" in name
            or "proj_out" in name
            or name.endswith("bias")
        ):
            nn.init.zeros_(p)
    for block in model.transformer_blocks:
        for linear in (block.img_mod[1], block.txt_mod[1]):
            linear.bias.data.view(6, dim)[[2, 5]] = 0.25  # gates; per half: shift, scale, gate
    return model


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Qwen-Image's sampler settings."""
    return FlowMatchEulerDiscreteScheduler(
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


def build_pipeline(vae: Model, text_encoder: Model, transformer: Model) -> Model:
    """The stock pipeline around trained parts."""
    return QwenImagePipeline(
        scheduler=build_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=shared_tokenizer(),
        transformer=transformer,
    )


def prepare(pipeline: Model, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Model:
    """On the device, in the precision, without a progress bar."""
    pipeline.to(device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
