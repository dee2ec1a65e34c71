"""The original names: one entry per family that was published under others than diffusers'.

Read from the conversions in diffusers 0.42.1 (loaders/single_file_utils.py), which go the other
way, and held to them by tests/families/test_original_names.py.
"""

from __future__ import annotations

from .modules import Module, OriginalNames


def same_end(name: str, ours: str, *ends: str) -> tuple[Module, ...]:
    """Modules that differ in the path before `ends`; an end "a=b" is a there and b in diffusers."""
    modules = []
    for end in ends:
        theirs, _, own = end.partition("=")
        modules.append(Module(name + theirs, (ours + (own or theirs),)))
    return tuple(modules)


def embedder(name: str, ours: str) -> tuple[Module, ...]:
    """Two linears that embed a number or a vector, in FLUX' names."""
    return same_end(f"{name}.", f"{ours}.", "in_layer=linear_1", "out_layer=linear_2")


DOUBLE = "double_blocks.{n}."
SINGLE = "single_blocks.{n}."
OUR_DOUBLE = "transformer_blocks.{n}."
OUR_SINGLE = "single_transformer_blocks.{n}."


def joined(name: str, ours: str, *ends: str) -> Module:
    return Module(name, tuple(ours + end for end in ends))


DOUBLE_ATTENTION = (
    joined(f"{DOUBLE}img_attn.qkv", f"{OUR_DOUBLE}attn.", "to_q", "to_k", "to_v"),
    joined(f"{DOUBLE}txt_attn.qkv", f"{OUR_DOUBLE}attn.", "add_q_proj", "add_k_proj", "add_v_proj"),
    *same_end(
        DOUBLE,
        f"{OUR_DOUBLE}attn.",
        "img_attn.proj=to_out.0",
        "txt_attn.proj=to_add_out",
        "img_attn.norm.query_norm.scale=norm_q.weight",
        "img_attn.norm.key_norm.scale=norm_k.weight",
        "txt_attn.norm.query_norm.scale=norm_added_q.weight",
        "txt_attn.norm.key_norm.scale=norm_added_k.weight",
    ),
)
SINGLE_NORMS = same_end(
    f"{SINGLE}norm.",
    f"{OUR_SINGLE}attn.",
    "query_norm.scale=norm_q.weight",
    "key_norm.scale=norm_k.weight",
)
FLUX_ENDS = (
    Module("img_in", ("x_embedder",)),
    Module("txt_in", ("context_embedder",)),
    Module("final_layer.linear", ("proj_out",)),
    Module("final_layer.adaLN_modulation.1", ("norm_out.linear",), swapped=True),
)
FLUX = OriginalNames(
    (
        *FLUX_ENDS,
        *embedder("time_in", "time_text_embed.timestep_embedder"),
        *embedder("guidance_in", "time_text_embed.guidance_embedder"),
        *embedder("vector_in", "time_text_embed.text_embedder"),
        *DOUBLE_ATTENTION,
        *same_end(
            DOUBLE,
            OUR_DOUBLE,
            "img_mod.lin=norm1.linear",
            "txt_mod.lin=norm1_context.linear",
            "img_mlp.0=ff.net.0.proj",
            "img_mlp.2=ff.net.2",
            "txt_mlp.0=ff_context.net.0.proj",
            "txt_mlp.2=ff_context.net.2",
        ),
        joined(f"{SINGLE}linear1", OUR_SINGLE, "attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        *same_end(SINGLE, OUR_SINGLE, "linear2=proj_out", "modulation.lin=norm.linear"),
        *SINGLE_NORMS,
    )
)
FLUX2 = OriginalNames(
    (
        *FLUX_ENDS,
        *embedder("time_in", "time_guidance_embed.timestep_embedder"),
        *embedder("guidance_in", "time_guidance_embed.guidance_embedder"),
        *same_end("", "", "double_stream_modulation_img.lin=double_stream_modulation_img.linear"),
        *same_end("", "", "double_stream_modulation_txt.lin=double_stream_modulation_txt.linear"),
        *same_end("", "", "single_stream_modulation.lin=single_stream_modulation.linear"),
        *DOUBLE_ATTENTION,
        *same_end(
            DOUBLE,
            OUR_DOUBLE,
            "img_mlp.0=ff.linear_in",
            "img_mlp.2=ff.linear_out",
            "txt_mlp.0=ff_context.linear_in",
            "txt_mlp.2=ff_context.linear_out",
        ),
        *same_end(SINGLE, f"{OUR_SINGLE}attn.", "linear1=to_qkv_mlp_proj", "linear2=to_out"),
        *SINGLE_NORMS,
    )
)


def zimage_attention(stack: str) -> tuple[Module, ...]:
    path = f"{stack}.{{n}}.attention."
    return (
        joined(f"{path}qkv", path, "to_q", "to_k", "to_v"),
        *same_end(path, path, "out=to_out.0", "q_norm=norm_q", "k_norm=norm_k"),
    )


ZIMAGE = OriginalNames(
    (
        *zimage_attention("layers"),
        *zimage_attention("noise_refiner"),
        *zimage_attention("context_refiner"),
        *same_end("x_embedder", "all_x_embedder.2-1", ""),
        Module("final_layer.linear", ("all_final_layer.2-1.linear",)),
        Module("final_layer.adaLN_modulation.1", ("all_final_layer.2-1.adaLN_modulation.1",)),
    ),
    others_stay=True,
)


def lumina_block(stack: str, modulated: bool = True) -> tuple[Module, ...]:
    path = f"{stack}.{{n}}."
    first = ("adaLN_modulation.1=norm1.linear", "attention_norm1=norm1.norm")
    return (
        joined(f"{path}attention.qkv", f"{path}attn.", "to_q", "to_k", "to_v"),
        *same_end(
            f"{path}attention.", f"{path}attn.", "out=to_out.0", "q_norm=norm_q", "k_norm=norm_k"
        ),
        *same_end(
            f"{path}feed_forward.",
            f"{path}feed_forward.",
            "w1=linear_1",
            "w2=linear_2",
            "w3=linear_3",
        ),
        *same_end(path, path, *(first if modulated else ("attention_norm1=norm1",))),
        *same_end(path, path, "attention_norm2=norm2", "ffn_norm1", "ffn_norm2"),
    )


EMBED = "time_caption_embed."
LUMINA2 = OriginalNames(
    (
        *lumina_block("layers"),
        *lumina_block("noise_refiner"),
        *lumina_block("context_refiner", modulated=False),
        *same_end("cap_embedder.", f"{EMBED}caption_embedder.", "0", "1"),
        *same_end("t_embedder.", f"{EMBED}timestep_embedder.", "mlp.0=linear_1", "mlp.2=linear_2"),
        Module("x_embedder", ("x_embedder",)),
        Module("final_layer.adaLN_modulation.1", ("norm_out.linear_1",)),
        Module("final_layer.linear", ("norm_out.linear_2",)),
    )
)

AURA_MLP = ("c_fc1=linear_1", "c_fc2=linear_2", "c_proj=out_projection")
AURA_DOUBLE, OUR_AURA = "double_layers.{n}.", "joint_transformer_blocks.{n}."
AURA_SINGLE = "single_layers.{n}."
AURAFLOW = OriginalNames(
    (
        Module("register_tokens", ("register_tokens",)),
        Module("positional_encoding", ("pos_embed.pos_embed",)),
        Module("init_x_linear", ("pos_embed.proj",)),
        Module("cond_seq_linear", ("context_embedder",)),
        Module("final_linear", ("proj_out",)),
        Module("modF.1", ("norm_out.linear",), swapped=True),
        *same_end("t_embedder.", "time_step_proj.", "mlp.0=linear_1", "mlp.2=linear_2"),
        *same_end(f"{AURA_DOUBLE}mlpX.", f"{OUR_AURA}ff.", *AURA_MLP),
        *same_end(f"{AURA_DOUBLE}mlpC.", f"{OUR_AURA}ff_context.", *AURA_MLP),
        *same_end(AURA_DOUBLE, OUR_AURA, "modX.1=norm1.linear", "modC.1=norm1_context.linear"),
        *same_end(
            f"{AURA_DOUBLE}attn.",
            f"{OUR_AURA}attn.",
            "w2q=to_q",
            "w2k=to_k",
            "w2v=to_v",
            "w2o=to_out.0",
            "w1q=add_q_proj",
            "w1k=add_k_proj",
            "w1v=add_v_proj",
            "w1o=to_add_out",
        ),
        *same_end(f"{AURA_SINGLE}mlp.", f"{OUR_SINGLE}ff.", *AURA_MLP),
        *same_end(AURA_SINGLE, OUR_SINGLE, "modCX.1=norm1.linear"),
        *same_end(
            f"{AURA_SINGLE}attn.",
            f"{OUR_SINGLE}attn.",
            "w1q=to_q",
            "w1k=to_k",
            "w1v=to_v",
            "w1o=to_out.0",
        ),
    )
)

WAN_BLOCK = "blocks.{n}."
WAN_ATTENTION = ("q=to_q", "k=to_k", "v=to_v", "o=to_out.0", "norm_q", "norm_k")
WAN_EMBED = "condition_embedder."
WAN = OriginalNames(
    (
        Module("patch_embedding", ("patch_embedding",)),
        Module("time_projection.1", (f"{WAN_EMBED}time_proj",)),
        *same_end("time_embedding.", f"{WAN_EMBED}time_embedder.", "0=linear_1", "2=linear_2"),
        *same_end("text_embedding.", f"{WAN_EMBED}text_embedder.", "0=linear_1", "2=linear_2"),
        Module("head.head", ("proj_out",)),
        Module("head.modulation", ("scale_shift_table",)),
        Module(f"{WAN_BLOCK}modulation", (f"{WAN_BLOCK}scale_shift_table",)),
        *same_end(f"{WAN_BLOCK}self_attn.", f"{WAN_BLOCK}attn1.", *WAN_ATTENTION),
        *same_end(f"{WAN_BLOCK}cross_attn.", f"{WAN_BLOCK}attn2.", *WAN_ATTENTION),
        *same_end(
            f"{WAN_BLOCK}cross_attn.",
            f"{WAN_BLOCK}attn2.",
            "k_img=add_k_proj",
            "v_img=add_v_proj",
            "norm_k_img=norm_added_k",
        ),
        *same_end(WAN_BLOCK, WAN_BLOCK, "norm3=norm2", "ffn.0=ffn.net.0.proj", "ffn.2=ffn.net.2"),
        *same_end(
            "img_emb.proj.",
            f"{WAN_EMBED}image_embedder.",
            "0=norm1",
            "1=ff.net.0.proj",
            "3=ff.net.2",
            "4=norm2",
        ),
    )
)

AS_IN_DIFFUSERS = OriginalNames((), others_stay=True)
ORIGINAL_NAMES: dict[str, OriginalNames] = {
    "flux": FLUX,
    "flux2": FLUX2,
    "zimage": ZIMAGE,
    "lumina2": LUMINA2,
    "auraflow": AURAFLOW,
    "wan": WAN,
}
