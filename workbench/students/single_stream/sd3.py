"""An SD3 or SD3.5 block with one stream."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import JointTransformerBlock, _chunked_feed_forward
from torch import nn

from .attention import JointAttention


class SD3SingleStreamBlock(nn.Module):
    """The image branch of a dual-stream block, for text and image tokens (arXiv 2602.17047, on
    SD3).

    Equal to the dual block whose text weights are copies of its image weights; half its parameters.
    The second attention of SD3.5 stays what it was: the image's own.
    """

    context_pre_only = False  # the model asks its blocks; the last one, which is, stays dual

    def __init__(self, dual: JointTransformerBlock) -> None:
        super().__init__()
        self.use_dual_attention = dual.use_dual_attention
        self.norm1 = dual.norm1
        self.attn = JointAttention(dual.attn)
        self.attn2 = dual.attn2
        self.norm2 = dual.norm2
        self.ff = dual.ff
        self.set_chunk_feed_forward(None)

    def set_chunk_feed_forward(self, chunk_size: int | None, dim: int = 0) -> None:
        self._chunk_size, self._chunk_dim = chunk_size, dim

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kwargs, image = joint_attention_kwargs or {}, hidden_states.shape[1]
        joint = torch.cat([hidden_states, encoder_hidden_states], dim=1)  # (B, image + text, D)

        modulated, gate_msa, shift_mlp, scale_mlp, gate_mlp, *second = self.norm1(joint, emb=temb)
        # joint + gate * attention, in one pass
        joint = torch.addcmul(joint, gate_msa[:, None], self.attn(modulated, **kwargs))
        if self.use_dual_attention:
            modulated2, gate_msa2 = second
            own = self.attn2(hidden_states=modulated2[:, :image], **kwargs)
            joint = torch.cat(
                [torch.addcmul(joint[:, :image], gate_msa2[:, None], own), joint[:, image:]], dim=1
            )
        modulated = torch.addcmul(shift_mlp[:, None], self.norm2(joint), 1 + scale_mlp[:, None])
        if self._chunk_size is None:
            fed = self.ff(modulated)
        else:
            fed = _chunked_feed_forward(self.ff, modulated, self._chunk_dim, self._chunk_size)
        joint = torch.addcmul(joint, gate_mlp[:, None], fed)
        return joint[:, image:], joint[:, :image]
