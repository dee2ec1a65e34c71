"""The stock transformer and text encoder, computed faster: the same parameters, the same output
(tested), one compiled block.

On a CPU, plain products with a softmax train faster than the fused attention (its backward is
slow), and the rotation of queries and keys runs vectorised when even and odd dimensions are stored
apart, which is a permutation of weight rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
import torch.nn.functional as F

from .models import PREFIX, Model, shared_tokenizer

Tensor = torch.Tensor


def _apart(weight: Tensor, head_dim: int) -> Tensor:
    """Rows of a query or key weight (or bias, or norm) with each head's even dimensions first, then
    the odd ones.
    """
    rest = weight.shape[1:]
    return weight.view(-1, head_dim // 2, 2, *rest).transpose(1, 2).reshape(-1, *rest)


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + half). x (B, N, H, D), cos and sin (N, 1, D / 2)."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1).to(x.dtype)


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """q (B, N, H, D), k and v (B, M, H, D), bias broadcast to (B, H, N, M), added to scores; result
    (B, N, H D).
    """
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    scores = (q @ k.mT).float() * q.shape[-1] ** -0.5 + bias
    return (scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2)


def _modulate(x: Tensor, modulation: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """Normalised, scaled and shifted x (B, N, D), and the gate (B, 1, D). modulation (B, 6, D)."""
    shift, scale, gate = modulation[:, 3 * half : 3 * half + 3].unsqueeze(2).unbind(1)
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift, gate


def _qkv(
    x: Tensor,
    w: dict[str, Tensor],
    names: tuple[str, str, str],
    norms: tuple[str, str],
    head_dim: int,
    cos: Tensor,
    sin: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one stream, (B, N, H, D) each, from the block's weights `w`."""
    query, key, value = (f"attn.{name}" for name in names)
    weight = torch.cat(
        [
            _apart(w[f"{query}.weight"], head_dim),
            _apart(w[f"{key}.weight"], head_dim),
            w[f"{value}.weight"],
        ]
    )
    bias = torch.cat(
        [
            _apart(w[f"{query}.bias"], head_dim),
            _apart(w[f"{key}.bias"], head_dim),
            w[f"{value}.bias"],
        ]
    )
    q, k, v = F.linear(x, weight, bias).unflatten(-1, (3, -1, head_dim)).unbind(2)
    q = _rotate(_rms(q, _apart(w[f"attn.{norms[0]}.weight"], head_dim)), cos, sin)
    k = _rotate(_rms(k, _apart(w[f"attn.{norms[1]}.weight"], head_dim)), cos, sin)
    return q, k, v


def _gelu(x: Tensor) -> Tensor:
    """The tanh approximation, written with a sigmoid: the same function, one fast exponential
    instead of a slow tanh.
    """
    wide = x.float()
    return (wide * torch.sigmoid(wide * (1.5957691216057308 + 0.07135481627159 * wide * wide))).to(
        x.dtype
    )


def _mlp(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    hidden = _gelu(F.linear(x, w[f"{name}.net.0.proj.weight"], w[f"{name}.net.0.proj.bias"]))
    return F.linear(hidden, w[f"{name}.net.2.weight"], w[f"{name}.net.2.bias"])


def block_forward(
    image: Tensor,
    text: Tensor,
    conditioning: Tensor,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    w: dict[str, Tensor],
    head_dim: int,
) -> tuple[Tensor, Tensor]:
    """One dual-stream block. image (B, N, D), text (B, T, D), conditioning (B, D) after SiLU, bias
    (B, 1, 1, T + N).
    """
    n = text.shape[1]
    # (B, 6, D)
    mod_i = F.linear(conditioning, w["img_mod.1.weight"], w["img_mod.1.bias"]).unflatten(
        -1, (6, -1)
    )
    mod_t = F.linear(conditioning, w["txt_mod.1.weight"], w["txt_mod.1.bias"]).unflatten(
        -1, (6, -1)
    )
    x, gate_i = _modulate(image, mod_i, 0)
    y, gate_t = _modulate(text, mod_t, 0)
    qkv_i = _qkv(x, w, ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), head_dim, cos[n:], sin[n:])
    qkv_t = _qkv(
        y,
        w,
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        ("norm_added_q", "norm_added_k"),
        head_dim,
        cos[:n],
        sin[:n],
    )
    q, k, v = (torch.cat([t, i], 1) for t, i in zip(qkv_t, qkv_i, strict=True))
    mixed = _attention(q, k, v, bias)  # (B, T + N, D)
    image = image + gate_i * F.linear(
        mixed[:, n:], w["attn.to_out.0.weight"], w["attn.to_out.0.bias"]
    )
    text = text + gate_t * F.linear(
        mixed[:, :n], w["attn.to_add_out.weight"], w["attn.to_add_out.bias"]
    )
    x, gate_i = _modulate(image, mod_i, 1)
    y, gate_t = _modulate(text, mod_t, 1)
    return image + gate_i * _mlp(x, w, "img_mlp"), text + gate_t * _mlp(y, w, "txt_mlp")


@cache
def compiled_block() -> Callable[..., tuple[Tensor, Tensor]]:
    """`block_forward`, compiled once for all blocks."""
    return torch.compile(block_forward, dynamic=False)


@lru_cache(maxsize=8)
def _rope(model: Model, side: int, text: int, device: str) -> tuple[Tensor, Tensor]:
    """cos and sin (T + N, 1, D / 2) of text, then image positions."""
    image, words = model.pos_embed(
        [(1, side, side)], max_txt_seq_len=text, device=torch.device(device)
    )
    angles = torch.cat([words, image])[:, None]
    return angles.real.contiguous(), angles.imag.contiguous()


def transformer_forward(
    model: Model,
    latents: Tensor,
    sigma: Tensor,
    text: Tensor,
    lengths: Tensor,
    tap: int = -1,
    compiled: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Predicted velocity (B, N, 4 z), and the image tokens after block `tap` (B, N, D), if any.

    latents (B, N, 4 z) packed; sigma (B,) in [0, 1]; text (B, T, D) padded on the right, lengths
    (B,).
    """
    head_dim = model.config.attention_head_dim
    dtype = model.img_in.weight.dtype
    side = round(latents.shape[1] ** 0.5)
    cos, sin = _rope(model, side, text.shape[1], str(latents.device))
    image = model.img_in(latents.to(dtype))
    words = model.txt_in(_rms(text.to(dtype), model.txt_norm.weight))
    conditioning = F.silu(model.time_text_embed(sigma, image))
    hidden = torch.arange(text.shape[1], device=text.device) >= lengths[:, None]  # (B, T)
    bias = F.pad(hidden.float() * -1e4, (0, latents.shape[1]))[:, None, None]
    run: Callable[..., tuple[Tensor, Tensor]] = block_forward
    if compiled:
        run = compiled_block()
    tapped = None
    for i, block in enumerate(model.transformer_blocks):
        image, words = run(
            image, words, conditioning, bias, cos, sin, dict(block.named_parameters()), head_dim
        )
        if i == tap:
            tapped = image
    scale, shift = model.norm_out.linear(conditioning)[:, None].chunk(2, -1)
    normalised = F.layer_norm(image, image.shape[-1:], eps=1e-6) * (1 + scale) + shift
    return model.proj_out(normalised), tapped


def _half_rotate(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (positions[:, None] * frequency)[:, None]  # (N, 1, D / 2)
    return _rotate(x, angle.cos(), angle.sin())


def _text_layer(
    layer: Model,
    x: Tensor,
    past: tuple[Tensor, Tensor] | None,
    start: int,
    heads: int,
    theta: float,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A causal text block over x (B, N, D), after `past` keys and values (1, P, H, D / H)."""
    attn = layer.self_attn
    y = _rms(x, layer.input_layernorm.weight)
    q, k, v = (p(y).unflatten(-1, (heads, -1)) for p in (attn.q_proj, attn.k_proj, attn.v_proj))
    positions = torch.arange(start, start + x.shape[1], device=x.device)
    q = _half_rotate(q, positions, theta)
    k = _half_rotate(k, positions, theta)
    if past is not None:
        k = torch.cat([past[0].expand(len(x), -1, -1, -1), k], 1)
        v = torch.cat([past[1].expand(len(x), -1, -1, -1), v], 1)
    future = torch.arange(k.shape[1], device=x.device) > positions[:, None]
    x = x + attn.o_proj(_attention(q, k, v, future.float() * -1e4))
    y = _rms(x, layer.post_attention_layernorm.weight)
    return x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y)), (k, v)


@cache
def prefix_ids() -> tuple[int, ...]:
    """The template's 34 tokens, the same for every caption."""
    return tuple(shared_tokenizer()(PREFIX).input_ids)


def text_forward(model: Model, ids: Tensor) -> Tensor:
    """Embeddings (B, T, D) of captions' ids (B, T), as the pipeline's: after the shared prefix,
    which is computed once.
    """
    language = model.model.language_model
    heads = language.config.num_attention_heads
    theta = language.config.rope_parameters["rope_theta"]
    prefix = torch.tensor([prefix_ids()], device=ids.device)
    head = language.embed_tokens(prefix)
    tail = language.embed_tokens(ids)
    for layer in language.layers:
        head, past = _text_layer(layer, head, None, 0, heads, theta)
        tail, _ = _text_layer(layer, tail, past, prefix.shape[1], heads, theta)
    return _rms(tail, language.norm.weight)
