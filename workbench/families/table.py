"""The rows: one per diffusers transformer class, read from diffusers 0.42.1.

docs/add-a-family.md shows how to add one; what several rows share is in shared_parts.py. Order of a
stack's fields: where it is, its inputs and outputs, what can be removed, what scales the residual.
"""

from __future__ import annotations

from .conditioning import Conditioning
from .inputs import Inputs
from .layouts import Part, Rows, whole
from .row_types import Family, FewSteps, StackRow
from .shared_parts import (
    ADA_LINEARS,
    ADA_PARTS,
    BOTH,
    CROSS_PARTS,
    DUAL,
    FF_PARTS,
    FF_TIE,
    HIDDEN,
    JOINT_TIE,
    LUMINA_PARTS,
    PARALLEL,
    QWEN_PARTS,
    REST,
    TEXT_FIRST,
    ZIMAGE_PARTS,
    modulation,
)

# modules that are imported when they are used
CALLS = "workbench.models.smallest_call:"
ENCODERS = "workbench.training.encode.latents:"
SINGLE_BLOCKS = "workbench.students.single_stream."
IDS = ("img_ids", "txt_ids")
TURBO = "turbo"  # in names of checkpoints: nothing in their configs tells them from the base model

FAMILIES_IN_ORDER = (
    Family(
        "qwenimage",
        "QwenImageTransformer2DModel",
        "QwenImagePipeline",
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "dual",
                BOTH,
                TEXT_FIRST,
                QWEN_PARTS,
                tie=JOINT_TIE | {"txt_mod": "img_mod", "txt_mlp": "img_mlp"},
                gain=(Rows("img_mod.1", (2, 5), 6), Rows("txt_mod.1", (2, 5), 6)),
                modulation=("img_mod.1", "txt_mod.1"),
            ),
        ),
        guidance="true_cfg_scale",
        few_steps=(FewSteps(8, 1.0, "a Lightning model, by its name", name="lightning"),),
        inputs=Inputs(mask="encoder_hidden_states_mask", shapes="img_shapes", rescale=True),
        encoder=ENCODERS + "qwen",
        single_block=SINGLE_BLOCKS + "qwenimage:QwenImageSingleStreamBlock",
        conditioning=Conditioning(
            optional={"use_additional_t_cond": "picture kind"}, arguments=CALLS + "qwen"
        ),
    ),
    Family(
        # one modulation for all blocks, outside them
        "qwenimage21",
        "QwenImage21Transformer2DModel",
        "QwenImage21Pipeline",
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                {"attn": Part(("attn",)), "mlp": Part(("img_mlp",))},
                gain=whole("attn.to_out", "img_mlp.out"),
            ),
        ),
    ),
    Family(
        "flux",
        "FluxTransformer2DModel",
        "FluxPipeline",
        (DUAL, PARALLEL),
        guidance="guidance_scale",
        negative=False,
        few_steps=(
            FewSteps(4, 0.0, "FLUX.1 schnell: no guidance_embeds", {"guidance_embeds": False}),
        ),
        inputs=Inputs(pooled=("pooled_projections",), shared=IDS, guidance="guidance"),
        encoder=ENCODERS + "flux",
        single_block=SINGLE_BLOCKS + "flux:FluxSingleStreamBlock",
        conditioning=Conditioning(("t", "pooled"), optional={"guidance_embeds": "guidance"}),
    ),
    Family(
        # modulation is shared, outside the blocks
        "flux2",
        "Flux2Transformer2DModel",
        "Flux2Pipeline",
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "dual",
                BOTH,
                TEXT_FIRST,
                FF_PARTS,
                tie=FF_TIE,
                gain=whole(
                    "attn.to_out", "attn.to_add_out", "ff.linear_out", "ff_context.linear_out"
                ),
            ),
            # One linear makes [q, k, v, MLP], one reads [attention, MLP].
            StackRow(
                "single_transformer_blocks",
                "num_single_layers",
                "single",
                HIDDEN,
                HIDDEN,
                {
                    "attn": Part(
                        ("attn.norm_q", "attn.norm_k"),
                        (
                            Rows("attn.to_qkv_mlp_proj", (0, 1, 2), None),
                            Rows("attn.to_out", (0,), None, 1),
                        ),
                    ),
                    "mlp": Part(
                        (),
                        (
                            Rows("attn.to_qkv_mlp_proj", REST[2:], None),
                            Rows("attn.to_out", REST, None, 1),
                        ),
                    ),
                },
                gain=whole("attn.to_out"),
            ),
        ),
        guidance="guidance_scale",
        negative=False,
        few_steps=(FewSteps(4, 1.0, "a distilled FLUX.2: is_distilled", {"is_distilled": True}),),
        inputs=Inputs(shared=IDS, expand=True, guidance="guidance"),
        encoder=ENCODERS + "flux2",
    ),
    Family(
        "sd3",
        "SD3Transformer2DModel",
        "StableDiffusion3Pipeline",
        # The last block has no text output (context_pre_only), and the class makes whichever block
        # is last so. Blocks in dual_attention_layers have a second attention, and nine rows of
        # modulation instead of six.
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "dual",
                BOTH,
                TEXT_FIRST,
                FF_PARTS
                | ADA_PARTS
                | {
                    "attn": Part(("attn.to_q", "attn.norm_q", "attn.to_out", "attn2")),
                    "modulation": modulation("norm1.linear", (2, 5, 8), None),
                },
                tie=FF_TIE | {"norm1_context": "norm1"},
                gain=(
                    Rows("norm1.linear", (2, 5, 8), None),
                    Rows("norm1_context.linear", (2, 5), 6),
                ),
                modulation=ADA_LINEARS,
                pinned=(-1,),
                per_index=("dual_attention_layers",),
            ),
        ),
        guidance="guidance_scale",
        batched=("uncond", "cond"),
        few_steps=(FewSteps(4, 0.0, "a Turbo model, by its name", name=TURBO),),
        inputs=Inputs(pooled=("pooled_projections",), scale=1000.0),
        encoder=ENCODERS + "scaled",
        single_block=SINGLE_BLOCKS + "sd3:SD3SingleStreamBlock",
        conditioning=Conditioning(("t", "pooled"), scale=1000.0),
    ),
    Family(
        "hunyuanimage",
        "HunyuanImageTransformer2DModel",
        "HunyuanImagePipeline",
        tuple(
            StackRow(
                row.path,
                row.depth_key,
                row.kind,
                BOTH,
                BOTH,
                row.parts,
                tie=row.tie,
                gain=row.gain,
                modulation=row.modulation,
            )
            for row in (DUAL, PARALLEL)
        ),
        token_pixels=32,
        guidance="distilled_guidance_scale",
        inputs=Inputs(
            text=("encoder_hidden_states", "encoder_hidden_states_2"),
            mask="encoder_attention_mask",
            more_masks={"encoder_hidden_states_2": "encoder_attention_mask_2"},
            mask_always=True,
            guidance="guidance",
            guidance_unit=1000.0,
            scale=1000.0,
            untrained={"use_meanflow": "it takes the next timestep too"},
        ),
        encoder=ENCODERS + "scaled",
        few_steps=(
            FewSteps(8, 3.25, "a distilled HunyuanImage: use_meanflow", {"use_meanflow": True}),
        ),
        side=2048,
        single_block=SINGLE_BLOCKS + "hunyuanimage:HunyuanImageSingleStreamBlock",
        conditioning=Conditioning(
            optional={"guidance_embeds": "guidance", "use_meanflow": "next t"},
            arguments=CALLS + "hunyuan",
            scale=1000.0,
        ),
    ),
    Family(
        "auraflow",
        "AuraFlowTransformer2DModel",
        "AuraFlowPipeline",
        # x + gate * mlp(norm(x + gate' * attention)): one branch, so one gate, and without the MLP
        # nothing is left. The AdaLN linears have no bias to hold a gate open: modulation cannot go.
        (
            StackRow(
                "joint_transformer_blocks",
                "num_mmdit_layers",
                "dual",
                BOTH,
                TEXT_FIRST,
                FF_PARTS,
                tie=FF_TIE | {"norm1_context": "norm1"},
                gain=(Rows("norm1.linear", (5,), 6), Rows("norm1_context.linear", (5,), 6)),
                modulation=ADA_LINEARS,
            ),
            StackRow(
                "single_transformer_blocks",
                "num_single_dit_layers",
                "single",
                HIDDEN,
                HIDDEN,
                {"attn": Part(("attn",)), "mlp": Part(("ff",))},
                gain=(Rows("norm1.linear", (5,), 6),),
                modulation=("norm1.linear",),
            ),
        ),
        guidance="guidance_scale",
        batched=("uncond", "cond"),
        inputs=Inputs(),
        encoder=ENCODERS + "scaled",
        single_block=SINGLE_BLOCKS + "auraflow:AuraFlowSingleStreamBlock",
        conditioning=Conditioning(arguments=CALLS + "pictures"),
    ),
    Family(
        "cogview4",
        "CogView4Transformer2DModel",
        "CogView4Pipeline",
        # Two streams through the same weights (but for the rows of the modulation): single in our
        # sense.
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "single",
                BOTH,
                BOTH,
                {
                    "attn": Part(("attn1",)),
                    "mlp": Part(("ff",)),
                    "modulation": modulation("norm1.linear", (4, 5, 10, 11), 12),
                },
                gain=(Rows("norm1.linear", (4, 5, 10, 11), 12),),
                modulation=("norm1.linear",),
            ),
        ),
        guidance="guidance_scale",
        # The sampler shifts its noise levels and not the timestep: the two differ.
        inputs=Inputs(
            pooled=("original_size", "target_size", "crop_coords"), scale=1000.0, timed=True
        ),
        encoder=ENCODERS + "scaled",
        conditioning=Conditioning(("t", "size"), scale=1000.0),
    ),
    Family(
        # The refiners count as outside: one config key sets the depth of both lists.
        "zimage",
        "ZImageTransformer2DModel",
        "ZImagePipeline",
        (
            StackRow(
                "layers",
                "n_layers",
                "single",
                ("x",),
                ("x",),
                ZIMAGE_PARTS,
                gain=whole("attention_norm2", "ffn_norm2"),
            ),
        ),
        guidance="guidance_scale",
        off=0.0,
        batched=("cond", "uncond"),
        few_steps=(FewSteps(9, 0.0, "a Turbo model, by its name", name=TURBO),),
        inputs=Inputs(latents="x", timestep="t", text=("cap_feats",), reverse=True, listed=True),
        encoder=ENCODERS + "scaled",
    ),
    Family(
        "lumina2",
        "Lumina2Transformer2DModel",
        "Lumina2Pipeline",  # refiners as in Z-Image
        (
            StackRow(
                "layers",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                LUMINA_PARTS,
                gain=whole("norm2", "ffn_norm2"),
            ),
        ),
        guidance="guidance_scale",
        inputs=Inputs(mask="encoder_attention_mask", mask_always=True, reverse=True, rescale=True),
        encoder=ENCODERS + "scaled",
    ),
    Family(
        "sana",
        "SanaTransformer2DModel",
        "SanaPipeline",
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                CROSS_PARTS,
                gain=whole("attn1.to_out", "attn2.to_out", "ff.conv_point"),
            ),
        ),
        guidance="guidance_scale",
        batched=("uncond", "cond"),
        arguments={"use_resolution_binning": False},  # pictures of the size that was asked for
        inputs=Inputs(
            untrained={"guidance_embeds": "SANA Sprint: its timesteps are of another scale"},
            mask="encoder_attention_mask",
            scale=1000.0,
        ),
        encoder=ENCODERS + "deep",
        token_pixels=32,
    ),
    Family(
        "pixart",
        "PixArtTransformer2DModel",
        "PixArtSigmaPipeline",
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                CROSS_PARTS,
                gain=whole("attn1.to_out", "attn2.to_out", "ff.net.2"),
            ),
        ),
        # Without binning the picture has the size that was asked for; cleaning captions needs
        # packages we do not have.
        guidance="guidance_scale",
        batched=("uncond", "cond"),
        arguments={"use_resolution_binning": False, "clean_caption": False},
        variance=True,
        inputs=Inputs(
            mask="encoder_attention_mask",
            ddpm=True,
            scale=999.0,
            constant={"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}},
        ),
        encoder=ENCODERS + "scaled",
    ),
    Family(
        "dit",
        "DiTTransformer2DModel",
        "DiTPipeline",
        # Every block has a copy of the timestep and class embedding, and the output head uses block
        # 0's.
        (
            StackRow(
                "transformer_blocks",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                {
                    "attn": Part(("attn1",)),
                    "mlp": Part(("ff",)),
                    "modulation": Part(
                        ("norm1.emb", "norm1.linear"), gates=(Rows("norm1.linear", (2, 5), 6),)
                    ),
                },
                gain=(Rows("norm1.linear", (2, 5), 6),),
                pinned=(0,),
            ),
        ),
        guidance="guidance_scale",
        batched=("cond", "uncond"),
        prompt="class_labels",
        inputs=Inputs(text=(), pooled=("class_labels",), ddpm=True, scale=999.0),
        encoder=ENCODERS + "scaled",
        variance=True,
    ),
    Family(
        "wan",
        "WanTransformer3DModel",
        "WanPipeline",
        (
            StackRow(
                "blocks",
                "num_layers",
                "single",
                HIDDEN,
                HIDDEN,
                {
                    "attn": Part(("attn1",)),
                    "cross": Part(("attn2", "norm2")),
                    "mlp": Part(("ffn",)),
                },
                gain=whole("attn1.to_out", "attn2.to_out", "ffn.net.2"),
            ),
        ),
        guidance="guidance_scale",
        inputs=Inputs(scale=1000.0),
        frames=21,  # of 81 pictures: the first, then four to a latent frame
    ),
    Family(
        "longcat",
        "LongCatImageTransformer2DModel",
        "LongCatImagePipeline",
        (DUAL, PARALLEL),
        guidance="guidance_scale",
        arguments={"enable_prompt_rewrite": False},  # the prompt as it was written
        inputs=Inputs(shared=IDS, rescale=True, rescale_most=1.0),
        encoder=ENCODERS + "flux",
        conditioning=Conditioning(arguments=CALLS + "packed"),
    ),
    Family(
        "ovis",
        "OvisImageTransformer2DModel",
        "OvisImagePipeline",
        (DUAL, PARALLEL),
        guidance="guidance_scale",
        inputs=Inputs(shared=IDS),
        encoder=ENCODERS + "flux",
        conditioning=Conditioning(arguments=CALLS + "packed"),
    ),
)
ROWS: dict[str, Family] = {family.name: family for family in FAMILIES_IN_ORDER}

# Classes that no row can describe, with the reason.
REFUSED: dict[str, str] = {
    "HunyuanDiT2DModel": "long skip connections pair its blocks: block i feeds block depth - 1 - "
    "i, so no block can go alone",
    "ChromaTransformer2DModel": "each block's modulation is computed from its number and the "
    "depth: a smaller stack is modulated anew (the table of numbers is not saved, so no "
    "checkpoint of the stock class can keep it)",
    "HiDreamImageTransformer2DModel": "each block has a caption projection of its own, outside "
    "the stack and found by number",
    "NucleusMoEImageTransformer2DModel": "which blocks are mixtures of experts follows from their "
    "numbers",
}
