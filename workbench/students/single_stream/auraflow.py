"""An AuraFlow joint block made single."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.auraflow_transformer_2d import AuraFlowJointTransformerBlock
from torch import nn

from .attention import JointAttention


class AuraFlowSingleStreamBlock(nn.Module):
    """The image branch of a joint block, for text and image tokens (arXiv 2602.17047, on AuraFlow).

    Equal to the joint block whose text weights are copies of its image weights; half its
    parameters.
    """

    def __init__(self, dual: AuraFlowJointTransformerBlock) -> None:
        super().__init__()
        self.norm1 = dual.norm1
        self.attn = JointAttention(dual.attn)
        self.norm2 = dual.norm2
        self.ff = dual.ff

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        temb: torch.Tensor,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        text = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)  # (B, text + image, D)

        modulated, gate_msa, shift_mlp, scale_mlp, gate_mlp = self.norm1(joint, emb=temb)
        attended = torch.addcmul(
            joint, gate_msa[:, None], self.attn(modulated, **(attention_kwargs or {}))
        )
        modulated = torch.addcmul(shift_mlp[:, None], self.norm2(attended), 1 + scale_mlp[:, None])
        # one branch: the attention reaches the stream through the MLP
        joint = torch.addcmul(joint, gate_mlp[:, None], self.ff(modulated))
        return joint[:, :text], joint[:, text:]
