"""A FLUX.1 dual-stream block made single."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxTransformerBlock
from torch import nn

from .attention import JointAttention


class FluxJointAttention(JointAttention):
    def rotate(self, x: torch.Tensor, rotary: Any) -> Any:
        return apply_rotary_emb(x, rotary, sequence_dim=1)


class FluxSingleStreamBlock(nn.Module):
    """The image branch of a dual-stream block, for text and image tokens (arXiv 2602.17047, on
    FLUX.1).

    Equal to the dual block whose text weights are copies of its image weights; half its parameters.
    FLUX.1's own single-stream blocks are others: they run attention and MLP side by side.
    """

    def __init__(self, dual: FluxTransformerBlock) -> None:
        super().__init__()
        self.norm1 = dual.norm1
        self.attn = FluxJointAttention(dual.attn)
        self.norm2 = dual.norm2
        self.ff = dual.ff

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        text = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)  # (B, text + image, D)

        modulated, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.norm1(joint, emb=temb)
        attended = self.attn(modulated, rotary=image_rotary_emb, **(joint_attention_kwargs or {}))
        # joint + gate * attended, in one pass over memory
        joint = torch.addcmul(joint, gate_msa[:, None], attended)
        modulated = torch.addcmul(shift_mlp[:, None], self.norm2(joint), 1 + scale_mlp[:, None])
        joint = torch.addcmul(joint, gate_mlp[:, None], self.ff(modulated))

        text_states, image_states = joint[:, :text], joint[:, text:]
        if text_states.dtype == torch.float16:
            text_states = text_states.clip(-65504, 65504)
        return text_states, image_states
