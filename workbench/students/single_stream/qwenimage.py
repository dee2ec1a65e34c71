"""A Qwen-Image block with one stream."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_qwenimage import (
    QwenImageTransformerBlock,
    apply_rotary_emb_qwen,
)
from torch import nn

from .attention import JointAttention


class QwenImageJointAttention(JointAttention):
    def rotate(self, x: torch.Tensor, rotary: Any) -> Any:
        return apply_rotary_emb_qwen(x, rotary, use_real=False)


class QwenImageSingleStreamBlock(nn.Module):
    """The image branch of a dual-stream block, for text and image tokens: Amber-Image's hybrid
    streams (arXiv 2602.17047).

    Equal to the dual block whose text weights are copies of its image weights; half its parameters.
    """

    _modulate: Any = QwenImageTransformerBlock._modulate

    def __init__(self, dual: QwenImageTransformerBlock) -> None:
        super().__init__()
        self.zero_cond_t = dual.zero_cond_t
        self.img_mod = dual.img_mod
        self.img_norm1 = dual.img_norm1
        self.attn = QwenImageJointAttention(dual.attn)
        self.img_norm2 = dual.img_norm2
        self.img_mlp = dual.img_mlp

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None,
        temb: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        joint_attention_kwargs: dict[str, Any] | None = None,
        modulate_index: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        text = encoder_hidden_states.shape[1]
        joint = torch.cat([encoder_hidden_states, hidden_states], dim=1)  # (B, text + image, D)
        attention_mask = None
        if encoder_hidden_states_mask is not None:
            image_mask = torch.ones(
                hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device
            )
            attention_mask = torch.cat([encoder_hidden_states_mask, image_mask], dim=1)[
                :, None, None, :
            ]
        if modulate_index is not None:  # text is modulated by the real timestep, as index 0 is
            modulate_index = torch.cat(
                [modulate_index.new_zeros(modulate_index.shape[0], text), modulate_index], dim=1
            )
        rotary = (
            None
            if image_rotary_emb is None
            else torch.cat([image_rotary_emb[1], image_rotary_emb[0]], dim=0)
        )
        mod1, mod2 = self.img_mod(temb).chunk(2, dim=-1)

        modulated, gate = self._modulate(self.img_norm1(joint), mod1, modulate_index)
        attended = self.attn(modulated, attention_mask, rotary, **(joint_attention_kwargs or {}))
        # joint + gate * attended, in one pass over memory
        joint = torch.addcmul(joint, gate, attended)
        modulated, gate = self._modulate(self.img_norm2(joint), mod2, modulate_index)
        joint = torch.addcmul(joint, gate, self.img_mlp(modulated))

        if joint.dtype == torch.float16:
            joint = joint.clip(-65504, 65504)
        return joint[:, :text], joint[:, text:]
