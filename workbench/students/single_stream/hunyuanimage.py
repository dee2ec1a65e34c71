"""A HunyuanImage dual-stream block made single."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_hunyuanimage import HunyuanImageTransformerBlock
from torch import nn

from .attention import JointAttention


class HunyuanImageJointAttention(JointAttention):
    def rotate(self, x: torch.Tensor, rotary: Any) -> Any:
        image = rotary[0].shape[0]  # image tokens come first, and alone have positions
        rotated: Any = apply_rotary_emb(x[:, :image], rotary, sequence_dim=1)
        return torch.cat([rotated, x[:, image:]], dim=1)


class HunyuanImageSingleStreamBlock(nn.Module):
    """The image branch of a dual-stream block, for text and image tokens (arXiv 2602.17047, on
    HunyuanImage).

    Equal to the dual block whose text weights are copies of its image weights; half its parameters.
    The model's own single-stream blocks are others: they run attention and MLP side by side.
    """

    def __init__(self, dual: HunyuanImageTransformerBlock) -> None:
        super().__init__()
        self.norm1 = dual.norm1
        self.attn = HunyuanImageJointAttention(dual.attn)
        self.norm2 = dual.norm2
        self.ff = dual.ff

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        image = hidden_states.shape[1]
        joint = torch.cat([hidden_states, encoder_hidden_states], dim=1)  # (B, image + text, D)

        modulated, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.norm1(joint, emb=temb)
        attended = self.attn(modulated, attention_mask, image_rotary_emb)
        # joint + gate * attended, in one pass over memory
        joint = torch.addcmul(joint, gate_msa[:, None], attended)
        modulated = torch.addcmul(shift_mlp[:, None], self.norm2(joint), 1 + scale_mlp[:, None])
        joint = torch.addcmul(joint, gate_mlp[:, None], self.ff(modulated))
        return joint[:, :image], joint[:, image:]
