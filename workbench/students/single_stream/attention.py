"""Joint attention of single-stream blocks."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn


class JointAttnProcessor:
    """Attention over text and image tokens in one sequence: one matrix product per projection."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: Any = None,
    ) -> torch.Tensor:
        if attn.fused_projections:
            projected = attn.to_qkv(hidden_states).chunk(3, dim=-1)
        else:
            projected = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        # (B, N, heads, head_dim)
        query, key, value = (x.unflatten(-1, (-1, attn.head_dim)) for x in projected)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        if rotary is not None:
            query, key = attn.rotate(query, rotary), attn.rotate(key, rotary)
        out = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=0.0,
            is_causal=False,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        out = out.flatten(2, 3).to(query.dtype)
        for module in attn.to_out:
            out = module(out)
        return out


class JointAttention(nn.Module, AttentionModuleMixin):
    """Self-attention over text and image tokens with the image branch's projections of a
    dual-stream block.

    It shares the dual attention's modules, and their names. diffusers' attention backends reach its
    processor.
    """

    _default_processor_cls: Any = JointAttnProcessor
    is_cross_attention = False
    processor: Any

    def __init__(self, dual: Any) -> None:
        super().__init__()
        self.heads, self.head_dim = dual.heads, dual.inner_dim // dual.heads
        self.use_bias = dual.use_bias
        for name in ("to_q", "to_k", "to_v", "norm_q", "norm_k", "to_out"):
            setattr(self, name, getattr(dual, name))
        self.processor = JointAttnProcessor()

    def rotate(self, x: torch.Tensor, rotary: Any) -> torch.Tensor:
        """Rotary position embedding of queries or keys (B, N, heads, head_dim)."""
        raise NotImplementedError

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary: Any = None,
        **ignored: Any,
    ) -> torch.Tensor:
        return self.processor(self, hidden_states, attention_mask, rotary)
