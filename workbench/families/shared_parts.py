"""What rows of the families table share: the parts of the kinds of block that diffusers has, what
ties text to image, what scales the residual.
"""

from __future__ import annotations

from .layouts import Part, Rows
from .row_types import StackRow

HIDDEN = ("hidden_states",)
BOTH = ("hidden_states", "encoder_hidden_states")  # as the blocks' signatures have them
TEXT_FIRST = ("encoder_hidden_states", "hidden_states")  # as most blocks return them
REST = tuple(range(1, 64))  # every chunk but the first

# --- dual-stream blocks with diffusers' joint attention -------------------------------------------

JOINT_TIE = {
    "attn.add_q_proj": "attn.to_q",
    "attn.add_k_proj": "attn.to_k",
    "attn.add_v_proj": "attn.to_v",
    "attn.norm_added_q": "attn.norm_q",
    "attn.norm_added_k": "attn.norm_k",
    "attn.to_add_out": "attn.to_out.0",
}
JOINT_PARTS = {
    # the text still reads the image's keys and values
    "attn": Part(("attn.to_q", "attn.norm_q", "attn.to_out")),
    "text.attn": Part(("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out")),
}
FF_PARTS = JOINT_PARTS | {"mlp": Part(("ff",)), "text.mlp": Part(("ff_context",))}
FF_TIE = JOINT_TIE | {"ff_context": "ff"}


def modulation(linear: str, gates: tuple[int, ...], of: int | None) -> Part:
    """An AdaLN linear that goes: shift and scale 0, gate 1."""
    return Part((linear,), gates=(Rows(linear, gates, of),))


ADA_PARTS = {
    "modulation": modulation("norm1.linear", (2, 5), 6),
    "text.modulation": modulation("norm1_context.linear", (2, 5), 6),
}
ADA_LINEARS = ("norm1.linear", "norm1_context.linear")
ADA_GAIN = (Rows("norm1.linear", (2, 5), 6), Rows("norm1_context.linear", (2, 5), 6))
DUAL = StackRow(
    "transformer_blocks",
    "num_layers",
    "dual",
    BOTH,
    TEXT_FIRST,
    FF_PARTS | ADA_PARTS,
    tie=FF_TIE | {"norm1_context": "norm1"},
    gain=ADA_GAIN,
    modulation=ADA_LINEARS,
)

# --- single-stream blocks with attention and MLP side by side -------------------------------------

# proj_out reads [attention, MLP]: the first columns are attention's, as wide as the block.
PARALLEL_PARTS = {
    "attn": Part(("attn",), (Rows("proj_out", (0,), None, 1),)),
    "mlp": Part(("proj_mlp",), (Rows("proj_out", REST, None, 1),)),
    "modulation": modulation("norm.linear", (2,), 3),
}
PARALLEL = StackRow(
    "single_transformer_blocks",
    "num_single_layers",
    "single",
    BOTH,
    TEXT_FIRST,
    PARALLEL_PARTS,
    gain=(Rows("norm.linear", (2,), 3),),
    modulation=("norm.linear",),
)

# --- single-stream blocks whose branches end in a norm --------------------------------------------

# x + tanh(gate) * norm(out): the gate is squashed and the norm undoes any scale before it, so the
# norm's weight scales.
ZIMAGE_PARTS = {
    "attn": Part(("attention", "attention_norm1", "attention_norm2")),
    "mlp": Part(("feed_forward", "ffn_norm1", "ffn_norm2")),
    "modulation": Part(
        ("adaLN_modulation",), gates=(Rows("adaLN_modulation.0", (1, 3), 4),), open=20.0
    ),
}
LUMINA_PARTS = {
    "attn": Part(("attn", "norm1.norm", "norm2")),
    "mlp": Part(("feed_forward", "ffn_norm1", "ffn_norm2")),
    "modulation": Part(("norm1.linear",), gates=(Rows("norm1.linear", (1, 3), 4),), open=20.0),
}

# --- blocks with cross-attention ------------------------------------------------------------------

# The gates are scale_shift_table + a term shared by all blocks: scaling the table would not scale
# them. The output projections do, and the ungated cross-attention has nothing else.
CROSS_PARTS = {"attn": Part(("attn1",)), "cross": Part(("attn2",)), "mlp": Part(("ff",))}

QWEN_PARTS = JOINT_PARTS | {
    "mlp": Part(("img_mlp",)),
    "text.mlp": Part(("txt_mlp",)),
    "modulation": modulation("img_mod.1", (2, 5), 6),
    "text.modulation": modulation("txt_mod.1", (2, 5), 6),
    # In the last dual block the text stream's output is discarded: only its keys and values are
    # read.
    "text.output": Part(
        ("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "txt_mlp"),
        (Rows("txt_mod.1", (2, 3, 4, 5), 6),),
        last_only=True,
    ),
}
