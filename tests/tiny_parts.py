"""Parts of tiny random pipelines: tokenizers that know a handful of words, and text encoders."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
import transformers as tf
from diffusers import FlowMatchEulerDiscreteScheduler

from tests.tiny import WORDS, randomise, tiny_tokenizer
from tests.tiny_families import CONFIGS
from workbench.families import FAMILIES

WIDTH = 16  # of the text encoders
CHAT = (
    "{% for message in messages %}{{ message.role }} {% if message.content is string %}{{ "
    "message.content }}"
    "{% else %}{% for item in message.content %}{{ item.text }}{% endfor %}{% endif %}{% "
    "endfor %}"
)
FOUR = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (4, 4, 4, 4),
    # 8 pixels a side make one latent
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
}


def clip_tokenizer() -> tf.CLIPTokenizer:
    """Letters, and whole words by merges; at most 16 tokens a prompt."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for piece in (letter, f"{letter}</w>"):
            vocabulary[piece] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for word in dict.fromkeys(WORDS.lower().split()):
        for end in range(2, len(word) + 1):
            tail = "</w>" if end == len(word) else ""
            if (pair := (word[: end - 1], word[end - 1] + tail)) not in merges:
                merges.append(pair)
            vocabulary.setdefault(word[:end] + tail, len(vocabulary))
    return tf.CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=16)


def t5_tokenizer() -> tf.T5Tokenizer:
    letters = [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = [
        (f"▁{word.lower()}", -2.0) for word in dict.fromkeys(WORDS.lower().split()) if len(word) > 1
    ]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0), *letters, *words]
    return tf.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=32)


def chat_tokenizer() -> tf.Qwen2Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def clip(tokenizer: tf.CLIPTokenizer, pooled: bool) -> tf.PreTrainedModel:
    config = tf.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=WIDTH,
        max_position_embeddings=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (tf.CLIPTextModelWithProjection if pooled else tf.CLIPTextModel)(config)


def t5(tokenizer: tf.T5Tokenizer, width: int = WIDTH) -> tf.T5EncoderModel:
    return tf.T5EncoderModel(
        tf.T5Config(
            vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2
        )
    )


def llm(kind: str, tokenizer: tf.PreTrainedTokenizerBase, layers: int) -> tf.PreTrainedModel:
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": None,
        "max_position_embeddings": 1024,
    }
    return getattr(tf, f"{kind}Model")(getattr(tf, f"{kind}Config")(**shape))


def transformer(name: str, **changes: Any) -> torch.nn.Module:
    model = getattr(diffusers, FAMILIES[name].transformer)(**{**CONFIGS[name], **changes})
    randomise(model)
    return model.eval()


def flow(**more: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **more)
